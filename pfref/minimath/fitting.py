"""A training loop that can be cut off and goes on where it was: batches, optimizers,
schedule, saved state.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

IGNORED = -100  # a target that carries no loss

Model = TypeVar("Model", bound=nn.Module)
Batch = tuple[Tensor, Tensor]  # token ids and targets, both (rows, length)


@dataclass(frozen=True)
class Recipe:
    """How a shipped model was trained: batches of 32 rows."""

    steps: int  # over which the schedule runs
    stop: int  # where to stop, at the schedule's end or before it
    rate: float
    seed: int
    decay: float = (
        0.57  # the last share of the steps, over which the rate falls to zero
    )


def mixed_precision() -> torch.autocast:
    """bfloat16 where the processor has vector instructions; torch has no attention in
    bfloat16 for one without.
    """
    return torch.autocast(
        "cpu",
        torch.bfloat16,
        enabled=torch.backends.cpu.get_cpu_capability() != "DEFAULT",
    )


def pad(rows: list[list[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def by_length(
    examples: Callable[[random.Random, int], list[tuple[list[int], list[int]]]],
    rows: int,
    padding: int,
    seed: int,
    pool_batches: int = 16,
) -> Callable[[int], Batch]:
    """Batches of rows of like length, cut from a pool that is sorted by length, in
    random order.
    """
    pools: dict[int, list[Batch]] = {}

    def batch_at(step: int) -> Batch:
        number, place = divmod(step, pool_batches)
        if number not in pools:
            pools.clear()
            rng = random.Random(f"{seed}/{number}")
            pool = sorted(
                examples(rng, rows * pool_batches), key=lambda pair: len(pair[0])
            )
            groups = [pool[k : k + rows] for k in range(0, len(pool), rows)]
            pools[number] = [
                (pad([ids for ids, _ in g], padding), pad([t for _, t in g], IGNORED))
                for g in rng.sample(groups, len(groups))
            ]
        return pools[number][place]

    return batch_at


def optimizers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the rest."""
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in learning if p.ndim == 2 and ".layers." in name]
    others = [p for name, p in learning if not (p.ndim == 2 and ".layers." in name)]
    return [
        torch.optim.Muon(
            matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def rate_at(step: int, recipe: Recipe) -> float:
    """Warm up over 100 steps, hold, and fall to zero."""
    return recipe.rate * min(
        1.0, (step + 1) / 100, (recipe.steps - step) / (recipe.decay * recipe.steps)
    )


def fit(
    model: Model,
    batch_at: Callable[[int], Batch],
    loss_of: Callable[[Model, Batch], Tensor],
    folder: Path,
    recipe: Recipe,
    report: Callable[[Model], str],
    label: str,
) -> None:
    """Train to `recipe.stop`, saving once a minute under `folder` and continuing from
    what is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    solvers = optimizers(model, recipe.rate)
    state_file, record_file = folder / "training.safetensors", folder / "training.json"
    first, seconds, lines = 0, 0.0, []
    if record_file.exists():
        record = json.loads(record_file.read_text())
        first, seconds, lines = record["step"], record["seconds"], record["lines"]
        restore(model, solvers, load_file(state_file))
    started = saved = time.time()
    for step in range(first, recipe.stop):
        for solver in solvers:
            for group in solver.param_groups:
                group["lr"] = rate_at(step, recipe)
        loss = loss_of(model, batch_at(step))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for solver in solvers:
            solver.step()
            solver.zero_grad()
        if time.time() - saved > 60 or step + 1 == recipe.stop:
            saved = time.time()
            line = (
                f"{label} step {step + 1}/{recipe.stop} "
                f"{seconds + saved - started:.0f} s "
                f"loss {loss.item():.3f} {report(model)}"
            )
            print(line, flush=True)
            lines.append(line)
            save_file(snapshot(model, solvers), state_file)
            record_file.write_text(
                json.dumps(
                    dict(step=step + 1, seconds=seconds + saved - started, lines=lines)
                )
            )


def snapshot(
    model: nn.Module, solvers: list[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """The weights and the optimizers' state as one flat dictionary of tensors."""
    tensors = {
        f"model/{name}": p.detach().clone() for name, p in model.named_parameters()
    }
    for k, solver in enumerate(solvers):
        for index, values in solver.state_dict()["state"].items():
            tensors |= {
                f"{k}/{index}/{key}": torch.as_tensor(value).clone()
                for key, value in values.items()
            }
    return tensors


def restore(
    model: nn.Module, solvers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model/{name}"])
    for k, solver in enumerate(solvers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            where, _, rest = name.partition("/")
            if where == str(k):
                index, _, key = rest.partition("/")
                state.setdefault(int(index), {})[key] = tensor
        solver.load_state_dict(solver.state_dict() | {"state": state})
