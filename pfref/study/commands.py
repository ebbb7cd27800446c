"""What `pfref run`, `pfref report` and `pfref pack` do."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..options import flag
from .recipe import ENDPOINTS, Recipe

OVERRIDES = (
    *("data", "skip", "limit", "seeds", "budgets", "model", "prm", "device"),
    *("endpoint", "endpoint_model", "dialect", "in_flight"),
    *("prm_endpoint", "prm_endpoint_model"),
)
PLAN = (
    *("particles", "gpus", "policy_speed", "prm_speed"),
    *("price", "slots", "sharing"),
)


def run(a: argparse.Namespace) -> None:
    changes = {name: getattr(a, name) for name in (*OVERRIDES, "dtype")}
    recipe = Recipe.read(a.recipe, **changes)
    folder = a.out or Path("runs") / Path(a.recipe).stem
    asked = {name: v for name in PLAN if (v := getattr(a, name)) is not None}
    if a.replay and (a.estimate or a.ray is not None):
        other = "--estimate" if a.estimate else "--ray"
        raise UserError(f"--replay reads records in this process; leave {other} out")
    if a.replay and a.replay.resolve() == folder.resolve():
        raise UserError("--replay needs another --out than the folder that it reads")
    if a.problems is not None and a.estimate:
        from .scale import as_text, scale

        plan = scale(recipe, folder, a.problems, **asked)
        print(json.dumps(plan, indent=1) if a.json else as_text(plan))
        return
    for name in ("problems", *asked, *(["json"] if a.json else [])):
        if getattr(a, name) is not None:
            others = "--estimate" if name == "problems" else "--estimate --problems"
            raise UserError(f"{flag(name)} goes with {others}")
    if a.estimate:
        from .estimate import estimate

        print(estimate(recipe, folder, a.part))
        return
    from .experiment import run as run_recipe
    from .replay import Replay

    given = [a.recipe] + [
        f"{flag(name)} {'URL' if name in ENDPOINTS else shown(value)}"
        for name, value in changes.items()
        if value is not None
    ]
    if a.workers is not None and (a.ray is None or a.workers < 1):
        raise UserError("--workers is the number of --ray's workers, at least 1")
    fleet = None
    if a.ray is not None:
        from .fleet import Fleet

        fleet = Fleet(a.ray or None, a.workers)
    replay = Replay(a.replay) if a.replay else None
    given += [f"--replay {shown(a.replay.name)}"] if replay else []
    called = "pfref run " + " ".join(given)
    ran = run_recipe(recipe, folder, a.part, called, a.quiet, fleet, replay)
    print(f"{ran} problems run; `pfref report {folder}` tells what they show")


def shown(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return " ".join(shlex.quote(str(v)) for v in values)


def report(a: argparse.Namespace) -> None:
    from .report import report_on
    from .tables import as_text

    found = report_on(
        a.folder,
        reference=a.reference,
        choices=a.choices,
        data=a.data,
        skip=a.skip,
        limit=a.limit,
    )
    text = json.dumps(found, indent=1, allow_nan=False) if a.json else as_text(found)
    print(text)
    if a.plot:
        from .curves import save_curves

        save_curves(found, a.plot)


def pack(a: argparse.Namespace) -> None:
    from .archive import pack as pack_records

    file, size = pack_records(a.folder, a.out, a.answers)
    print(f"{file}: {size / 1e6:.1f} MB")


COMMANDS = {"run": run, "report": report, "pack": pack}
