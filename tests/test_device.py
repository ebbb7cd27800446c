"""On a pretended GPU: nothing mixes devices, and the host hardly ever waits.

Each check runs in a process of its own, since registering a device changes torch.
"""

import subprocess
import sys

import pytest

from tests.book_checks import ROOT


@pytest.mark.parametrize(
    "name",
    ["solve", "others", pytest.param("evaluation", marks=pytest.mark.slow), "waits"],
)
def test_on_a_pretended_gpu(name: str) -> None:
    command = [sys.executable, "-m", "tests.on_pretended_gpu", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_pretended_gpu_refuses_what_cuda_refuses() -> None:
    program = """
import torch
from tests.pretended_gpu import DEVICE, PretendedGPU
with PretendedGPU() as gpu:
    a = torch.zeros(3, device=DEVICE)
    a + 1, a + torch.tensor(1.0)  # a number may come from the host
    for wrong in (
        lambda: a + torch.ones(3), lambda: torch.ones(3)[a.long()], lambda: a.numpy()
    ):
        try:
            wrong()
        except (RuntimeError, TypeError):
            continue
        print("not refused")
    before = sum(gpu.waits.values())
    a.tolist(), a.cpu(), bool(a[0] > 0), a[a > 0], a.nonzero()
    assert sum(gpu.waits.values()) - before >= 5, gpu.waits
    assert gpu.launches["add"] == 2, gpu.launches
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr
