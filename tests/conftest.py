"""Tests marked `weights` run only where the environment variable PFREF_WEIGHTS names a
folder of real models.
"""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("PFREF_WEIGHTS"):
        for item in items:
            if item.get_closest_marker("weights"):
                item.add_marker(
                    pytest.mark.skip(
                        reason="PFREF_WEIGHTS names no folder of real models"
                    )
                )
