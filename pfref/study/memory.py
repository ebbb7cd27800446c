"""How much memory a batch may take, before it is taken.

A row is counted at its limits: the keys and values of all the tokens that it may write,
an eighth more because buffers grow by an eighth, and its logits. Prompts are held once
a problem, each as long as the longest.
"""

from collections import defaultdict
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
    rows, batch = cell.settings.together, cell.settings.batch
    for device, each in row_bytes(cell, lm, prm, problems).items():
        free = free_bytes(device)
        if not free:
            continue
        fit = int(SHARE * free / (each * rows))  # problems
        if fit < 1:
            raise UserError(
                f"{rows} particles of one problem may take {rows * each / 1e9:.1f} GB, "
                f"and {free / 1e9:.1f} GB are free{on(device)}; take a smaller budget, "
                "smaller models or fewer max_tokens"
            )
        batch = min(batch, fit * rows)
    return batch


def told(cell: Cell, lm: Any, prm: Any, problems: Sequence[str]) -> str:
    """A line on weights, a batch at its limits, and what is free besides, for each
    device.
    """
    one = cell.settings.together
    rows = cell.settings.at_once * one
    lines = []
    for device, each in row_bytes(cell, lm, prm, problems).items():
        free, needed = free_bytes(device), rows * each
        weights = sum(
            p.nbytes
            for model in bodies(lm, prm)
            for p in model.parameters()
            if p.device == device
        )
        line = (
            f"memory{on(device)}: {weights / 1e9:.2f} GB of weights, at most "
            f"{needed / 1e9:.2f} GB for {rows} rows"
        )
        if free:
            line += f", {free / 1e9:.1f} GB are free"
        if free and one * each > SHARE * free:
            line += f"; {one} particles of one problem do not fit"
        elif free and needed > SHARE * free:
            line += "; batches will be smaller, so that they fit"
        lines.append(line)
    return "\n".join(lines)


def on(device: torch.device) -> str:
    return "" if device.type == "cpu" else f" on {device}"


def bodies(lm: Any, prm: Any) -> list[Any]:
    """The models in this process, each once: a policy may be its own reward model."""
    return list(
        dict.fromkeys(
            getattr(m, "base_model", m)
            for m in (lm.model, prm.body)
            if isinstance(m, torch.nn.Module)
        )
    )


def row_bytes(
    cell: Cell, lm: Any, prm: Any, problems: Sequence[str]
) -> dict[torch.device, float]:
    """Of one particle at its limits, with its share of its prompt, on each device."""
    limit = cell.settings.proposal.max_tokens
    longest = max(
        (len(lm.prompt(text, cell.settings.system)) for text in problems), default=0
    )
    limit = min(limit, lm.context)
    tokens = GROWTH * limit + longest / cell.settings.together
    found: dict[torch.device, float] = defaultdict(float)
    # A probe reads while the policy writes, and has no cache of its own.
    cached = [lm.model] if isinstance(prm, Probe) else [lm.model, prm.body]
    for model in cached:
        if isinstance(model, torch.nn.Module):  # else a server's
            found[place_of(model)] += token_bytes(model) * tokens
    if isinstance(lm.model, torch.nn.Module):
        size = lm.head.weight.element_size()
        found[place_of(lm.model)] += lm.vocabulary * (2.0 * size + 4)
    return found


def place_of(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


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
    machine = int(found[0].split()[1]) * 1024 if found else 0
    return min(machine, container_bytes(machine))


def container_bytes(machine: int, group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that the container can still take; those of the machine without a limit.
    Files that are held but not used give way.
    """
    try:
        limit = (group / "memory.max").read_text().strip()
        taken = int((group / "memory.current").read_text())
        stat = dict(map(str.split, (group / "memory.stat").read_text().splitlines()))
        left = int(limit) - taken + int(stat.get("inactive_file", 0))
        return max(1, left)  # 0 would be nobody's word
    except (OSError, ValueError):  # no control groups, or "max"
        return machine
