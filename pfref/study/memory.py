"""How much memory a batch may take, before it is taken.

A row is counted at its limits: the keys and values of all the tokens that it may write,
an eighth more because buffers grow by an eighth, and its logits. Prompts are held once
a problem, each as long as the longest.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..probe import Probe
from .recipe import Cell

SHARE = 0.9  # of what is free; the rest is for what passes
GROWTH = 9 / 8


def fitting(cell: Cell, lm: Any, prm: Any, problems: Sequence[str]) -> int:
    """Particles that a batch may have: the cell's own number, or as many as fit.

    Raises UserError if not even one problem's do.
    """
    free = free_bytes(lm.device)
    each = row_bytes(cell, lm, prm, problems)
    most = int(SHARE * free / each) if free else cell.settings.batch
    if most < cell.n:
        raise UserError(
            f"{cell.n} particles of one problem may take {cell.n * each / 1e9:.1f} GB, "
            f"and {free / 1e9:.1f} GB are free; take a smaller budget, smaller models "
            "or fewer max_tokens"
        )
    return min(cell.settings.batch, most)


def told(cell: Cell, lm: Any, prm: Any, problems: Sequence[str]) -> str:
    """A line on weights, a batch at its limits, and what is free besides."""
    n, batch = cell.n, cell.settings.batch
    rows, free = max(n, batch // n * n), free_bytes(lm.device)
    weights = sum(p.nbytes for m in bodies(lm, prm) for p in m.parameters())
    needed = rows * row_bytes(cell, lm, prm, problems)
    line = (
        f"memory: {weights / 1e9:.2f} GB of weights, at most {needed / 1e9:.2f} GB for "
        f"{rows} rows"
    )
    if not free:
        return line
    fits = (
        "" if needed <= SHARE * free else "; batches will be smaller, so that they fit"
    )
    return f"{line}, {free / 1e9:.1f} GB are free{fits}"


def bodies(lm: Any, prm: Any) -> list[Any]:
    """The models, each once: a policy may be its own reward model."""
    return list(
        dict.fromkeys(getattr(m, "base_model", m) for m in (lm.model, prm.body))
    )


def row_bytes(cell: Cell, lm: Any, prm: Any, problems: Sequence[str]) -> float:
    """Of one particle at its limits, with its share of its prompt."""
    limit = cell.settings.proposal.max_tokens
    longest = max(
        (len(lm.prompt(text, cell.settings.system)) for text in problems), default=0
    )
    tokens = GROWTH * limit + longest / cell.n
    # A probe reads while the policy writes, and has no cache of its own.
    cached = [lm.model] if isinstance(prm, Probe) else [lm.model, prm.body]
    keys = sum(token_bytes(model) for model in cached) * tokens
    size: int = lm.head.weight.element_size()
    return keys + lm.vocabulary * (2.0 * size + 4)


def token_bytes(model: Any) -> int:
    """Keys and values of one token."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    each: int = next(model.parameters()).element_size()
    return 2 * int(config.num_hidden_layers * heads * size) * each


def free_bytes(device: torch.device) -> int:
    """Bytes that the device can still give; 0 where nobody says."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    info = Path("/proc/meminfo")
    if not info.exists():
        return 0
    found = [line for line in info.read_text().splitlines() if "MemAvailable" in line]
    return int(found[0].split()[1]) * 1024 if found else 0
