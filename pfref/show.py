"""Show a piece of the package as the package has it, for the book's chapters."""

import inspect
from typing import Any


def show(*things: Any) -> None:
    """Print the source of functions, classes or modules."""
    print("\n\n".join(inspect.getsource(thing).rstrip() for thing in things))
