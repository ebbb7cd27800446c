"""Explicit randomness: one CPU generator per population, and draws that depend on
nothing else.

A population asks its own generator for its own numbers, so its particles are the same
whether it runs alone or in a batch, on one thread or on many, on a CPU or on a GPU.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor


def generator(*key: object) -> Generator:
    """A CPU generator seeded by everything in `key`, the same on every machine.

    A NumPy number counts as the Python number that it holds.
    """
    key = tuple(part.item() if hasattr(part, "item") else part for part in key)
    digest = hashlib.sha256(repr(key).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def generators(seed: int, populations: int) -> list[Generator]:
    """One generator for each of P populations."""
    return [generator(seed, population) for population in range(populations)]


def split(sources: Sequence[Generator], copies: int) -> list[Generator]:
    """Generators of `copies` populations for each of Q problems, a problem's next to
    one another, each seeded by a draw from the problem's. One copy is the source.
    """
    if copies == 1:
        return list(sources)
    seeds = [
        torch.randint(2**62, (copies,), generator=source).tolist() for source in sources
    ]
    return [generator(seed) for own in seeds for seed in own]


def uniforms(sources: Sequence[Generator], *shape: int) -> Tensor:
    """Uniform numbers in [0, 1), float64, of shape (P, *shape): row p comes from
    generator p.
    """
    return draw(torch.rand, sources, shape)


def normals(sources: Sequence[Generator], *shape: int) -> Tensor:
    """Standard normal numbers, float64, of shape (P, *shape): row p comes from
    generator p.
    """
    return draw(torch.randn, sources, shape)


def draw(
    sample: Callable[..., Tensor], sources: Sequence[Generator], shape: tuple[int, ...]
) -> Tensor:
    return torch.stack(
        [sample(shape, generator=source, dtype=torch.float64) for source in sources]
    )
