"""Many machines: the same runner in the actors of a Ray cluster, and records as
everywhere. What Ray does (placing, restarting, streaming) is Ray's.

    pip install 'pfref[ray]'
    pfref run minimath500 --ray                    this machine, a worker a core or GPU
    pfref run minimath500 --ray ray://head:10001   a cluster
"""

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import UserError
from ..solver import in_batches
from .experiment import Models, run_cell
from .recipe import Cell
from .records import Run, decode, encode
from .tasks import Item, Task

Share = tuple[int, list[Item]]  # a cell's number, and problems solved together


class Worker:
    """An actor: it loads models when it first needs them, and keeps them. Texts go in
    and come out: shares, and lines of records.
    """

    def __init__(self, cells: Sequence[Cell], task: Task) -> None:
        self.cells, self.task, self.models = cells, task, Models()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The lines of one share, or the one that says why there are none."""
        number, items = json.loads(row["share"])
        cell, lines = self.cells[number], list[str]()

        def note(runs: Sequence[Run]) -> None:
            lines.extend(encode([run]) for run in runs)

        try:
            pair = self.models(cell.models)
            run_cell(cell, [Item(**item) for item in items], self.task, pair, note)
        except UserError as error:
            return {"lines": json.dumps(lines), "error": str(error)}
        return {"lines": json.dumps(lines), "error": ""}


@dataclass(frozen=True)
class Fleet:
    """A cluster: its address, None for one on this machine; and how many workers, None
    for one a GPU, or else a core.
    """

    address: str | None = None
    workers: int | None = None

    def run(
        self,
        left: Sequence[tuple[Cell, list[Item]]],
        task: Task,
        note: Callable[[Sequence[Run]], None],
    ) -> None:
        """Run what is left, and hand each share's runs to `note` as they come.

        A worker that dies is replaced, and its share is run again. Raises UserError if
        Ray is missing, there is no cluster, or a worker raises it.
        """
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "--ray needs Ray: pip install 'pfref[ray]', here and on the machines"
            ) from error
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        logging.getLogger("ray").setLevel(logging.ERROR)
        own = not ray.is_initialized()
        if own:
            reach(self.address)
            ray.init(self.address, log_to_driver=False, logging_level="error")
        try:
            for row in self.stream(left, task):
                note(
                    [run for line in json.loads(row["lines"]) for run in decoded(line)]
                )
                if row["error"]:
                    raise UserError(row["error"])
        finally:
            if own:
                ray.shutdown()

    def stream(
        self, left: Sequence[tuple[Cell, list[Item]]], task: Task
    ) -> Iterator[dict[str, Any]]:
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        there = ray.cluster_resources()
        cells, shares = [cell for cell, _ in left], in_shares(left)
        gpus = int(there.get("GPU", 0)) if any(map(computes, cells)) else 0
        workers = self.workers or gpus or int(there.get("CPU", 1))
        pool = ray.data.ActorPoolStrategy(
            min_size=1, max_size=max(1, min(workers, len(shares)))
        )
        rows = [
            {"share": json.dumps([number, [asdict(item) for item in items]])}
            for number, items in shares
        ]
        found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Worker,
            fn_constructor_args=(cells, task),
            compute=pool,
            num_gpus=1 if gpus else None,
            num_cpus=None if gpus else 1,
        )
        yield from found.iter_rows()


def computes(cell: Cell) -> bool:
    """Does a model of this cell want a worker's GPU?"""
    served = cell.models["endpoint"] and cell.models["prm_endpoint"]
    return not served and cell.models["device"] != "cpu"


def reach(address: str | None) -> None:
    """Raises UserError if nobody listens there: Ray itself would wait for minutes."""
    if address in (None, "auto", "local"):
        return
    place = urlsplit(address if "//" in str(address) else f"ray://{address}")
    try:
        with socket.create_connection((place.hostname, place.port or 10001), 10):
            pass
    except (OSError, ValueError) as error:
        raise UserError(
            f"there is no Ray cluster at {address} ({error}); start one with `ray "
            "start --head`, or leave the address out to use this machine"
        ) from error


def decoded(line: str) -> Iterator[Run]:
    return decode(json.loads(line))


def in_shares(left: Sequence[tuple[Cell, list[Item]]]) -> list[Share]:
    """Batches of each cell's problems, as one process would run them. Problems of one
    text stay together: their particles depend on how often it came before.
    """
    found: list[Share] = []
    for number, (cell, items) in enumerate(left):
        by_text: dict[str, list[Item]] = {}
        for item in items:
            by_text.setdefault(item.problem, []).append(item)
        groups = list(by_text.values())
        for part in in_batches(len(groups), cell.settings):
            found.append((number, [item for group in groups[part] for item in group]))
    return found
