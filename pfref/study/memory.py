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
from ..methods import ROUND
from ..probe import Probe
from .recipe import Cell

SHARE = 0.9  # of what is free; the rest is for what passes
GROWTH = 9 / 8


def fitting(cell: Cell, lm: Any, prm: Any, problems: Sequence[str]) -> int:
    """Particles that a batch may have: the cell's own number, or as many as fit.

    Raises UserError if not even one problem's do.
    """
    free = free_bytes(lm.device)
    if not free:
        return cell.settings.batch
    each, rows = row_bytes(cell, lm, prm, problems), at_once(cell)
    fit = int(SHARE * free / (each * rows))  # problems
    if not fit:
        raise UserError(
            f"{rows} particles of one problem may take {rows * each / 1e9:.1f} GB, "
            f"and {free / 1e9:.1f} GB are free; take a smaller budget, smaller models "
            "or fewer max_tokens"
        )
    return min(cell.settings.batch, fit * cell.n)


def at_once(cell: Cell) -> int:
    """Particles of a problem that are held together: those of a sweep, or a round."""
    s = cell.settings
    if s.method in ("gibbs", "tempering"):
        return max(1, cell.n // s.sweeps)
    return min(cell.n, ROUND) if s.method == "adaptive" else cell.n


def told(cell: Cell, lm: Any, prm: Any, problems: Sequence[str]) -> str:
    """A line on weights, a batch at its limits, and what is free besides."""
    one, free = at_once(cell), free_bytes(lm.device)
    rows = max(1, cell.settings.batch // cell.n) * one
    weights = sum(p.nbytes for m in bodies(lm, prm) for p in m.parameters())
    each = row_bytes(cell, lm, prm, problems)
    needed = rows * each
    line = (
        f"memory: {weights / 1e9:.2f} GB of weights, at most {needed / 1e9:.2f} GB for "
        f"{rows} rows"
    )
    if not free:
        return line
    fits = ""
    if needed > SHARE * free:
        fits = "; batches will be smaller, so that they fit"
    if one * each > SHARE * free:
        fits = f"; {one} particles of one problem do not fit"
    return f"{line}, {free / 1e9:.1f} GB are free{fits}"


def bodies(lm: Any, prm: Any) -> list[Any]:
    """The models in this process, each once: a policy may be its own reward model."""
    return list(
        dict.fromkeys(
            getattr(m, "base_model", m)
            for m in (lm.model, prm.body)
            if isinstance(m, torch.nn.Module)
        )
    )


def row_bytes(cell: Cell, lm: Any, prm: Any, problems: Sequence[str]) -> float:
    """Of one particle at its limits, with its share of its prompt."""
    limit = cell.settings.proposal.max_tokens
    longest = max(
        (len(lm.prompt(text, cell.settings.system)) for text in problems), default=0
    )
    limit = min(limit, lm.context)
    tokens = GROWTH * limit + longest / at_once(cell)
    # A probe reads while the policy writes, and has no cache of its own.
    cached = [lm.model] if isinstance(prm, Probe) else [lm.model, prm.body]
    here = [model for model in cached if isinstance(model, torch.nn.Module)]
    keys = sum(token_bytes(model) for model in here) * tokens
    if lm.model not in here:  # a server's
        return keys
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
