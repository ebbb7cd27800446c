"""What surrounds the attention kernel, without Triton: when it is taken, and how it is
launched. What it computes is in test_kernels.py.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from pfref import kernels


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "triton", object())
    monkeypatch.setattr(kernels, "INTERPRETED", True)


def asked(
    size: int = 64, other: int = 64, dtype: Any = torch.float32
) -> tuple[Tensor, Tensor]:
    query, value = (torch.zeros(1, 2, 3, n, dtype=dtype) for n in (size, other))
    return query, value


def test_what_the_kernel_takes(interpreted: None) -> None:
    for size in (16, 32, 64, 128, 256):
        assert kernels.available(*asked(size, size), None)
    assert kernels.available(*asked(dtype=torch.float16), None)
    assert not kernels.available(*asked(80, 80), None)
    assert not kernels.available(*asked(64, 32), None)
    assert not kernels.available(*asked(), 30.0)
    assert not kernels.available(*asked(dtype=torch.float64), None)
    assert not kernels.available(*asked(dtype=torch.bfloat16), None)
    query, value = asked()
    assert not kernels.available(query, value.half(), None)
    assert not kernels.available(query.requires_grad_(), value, None)


def test_without_triton_it_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "triton", None)
    assert not kernels.available(*asked(), None)


class Launches:
    """Stands for the kernel and notes how it is launched."""

    def __init__(self) -> None:
        self.noted: list[tuple[int, tuple[Any, ...], dict[str, Any]]] = []

    def __getitem__(self, grid: tuple[int]) -> Any:
        return lambda *given, **sizes: self.noted.append((grid[0], given, sizes))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    monkeypatch.setattr(kernels, "ragged", found := Launches())
    return found


@pytest.mark.parametrize(
    ("queries", "dtype", "size", "block_m", "block_n", "warps"),
    [
        (1, torch.float32, 64, 16, 64, 8),
        (16, torch.float32, 128, 16, 32, 8),
        (17, torch.float32, 256, 32, 16, 8),
        (33, torch.float32, 64, 32, 64, 8),
        (33, torch.float16, 128, 64, 64, 4),
        (100, torch.float16, 256, 64, 32, 4),
    ],
)
def test_blocks_of_a_launch(
    queries: int, dtype: Any, size: int, block_m: int, block_n: int, warps: int,
    launches: Launches,
) -> None:  # fmt: skip
    query = torch.zeros(3, 2, queries, size, dtype=dtype)
    key = torch.zeros(3, 2, 9, size, dtype=dtype)
    limits = torch.ones(3, queries, dtype=torch.long)
    out, z = kernels.attend_ragged(query, key, key, limits, 0.5)
    assert (out.shape, out.dtype) == (query.shape, dtype)
    assert (z.shape, z.dtype) == ((3, 2, queries, 1), torch.float32)
    ((programs, given, sizes),) = launches.noted
    assert programs == 3 * 2 * -(-queries // block_m)
    assert given[6:10] == (0.5, 2, queries, 9)
    assert given[10:] == (*key.stride()[:3], *key.stride()[:3], *limits.stride())
    assert (sizes["BLOCK_M"], sizes["BLOCK_N"]) == (block_m, block_n)
    assert (sizes["SIZE"], sizes["num_warps"]) == (size, warps)


@pytest.mark.parametrize("turned", [0, 1])
def test_a_vector_lies_in_one_piece(turned: int, launches: Launches) -> None:
    """The kernel steps through a key's and a value's numbers one by one."""
    pair = [torch.zeros(1, 1, 5, 16) for _ in range(2)]
    pair[turned] = torch.zeros(1, 1, 16, 5).transpose(2, 3)
    query = torch.zeros(1, 1, 16, 2).transpose(2, 3)
    kernels.attend_ragged(query, pair[0], pair[1], torch.ones(1, 2).long(), 1.0)
    _, given, _ = launches.noted[0]
    assert given[0].is_contiguous()
    assert given[1].stride(-1) == given[2].stride(-1) == 1


def test_it_is_tried_once_on_a_device(
    monkeypatch: pytest.MonkeyPatch, launches: Launches
) -> None:
    works, here = kernels.works.__wrapped__, torch.device("cpu")
    capability = [(8, 0)]
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: capability[0]
    )
    assert works(here, torch.float16, 64)
    assert [sizes["BLOCK_M"] for _, _, sizes in launches.noted] == [16, 32, 64]
    assert all(given[3].eq(1).all() for _, given, _ in launches.noted)
    capability[0] = (7, 5)
    assert not works(here, torch.float16, 64)
    capability[0] = (9, 0)
    monkeypatch.setattr(kernels, "ragged", None)  # whatever fails
    with pytest.warns(UserWarning, match="without its kernel"):
        assert not works(here, torch.float16, 64)
