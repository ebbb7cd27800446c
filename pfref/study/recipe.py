"""A recipe: which methods, budgets and seeds a study runs over which problems, with
which models, read from a small TOML file.

    task = "minimath"            how answers are read and compared
    data = "minimath500"         a data set by name, or a file of problems
    model = "minimath-small"     and prm, dtype, device, ... as `pfref solve` names them
    budgets = [1, 4, 16, 64]     N, a problem's budget
    seeds = [0, 1, 2]
    [settings]                   options of all methods, as `pfref solve` names them
    temperature = 0.8
    [[method]]                   one table a method: its options, models, budgets, seeds
    label = "filter"
    method = "filter"

Imports nothing slow.
"""

import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..arguments import Parser, add_models
from ..errors import UserError, hint
from ..options import OPTIONS, settings_from
from ..settings import Settings, fits
from .tasks import task_named

SHIPPED = Path(__file__).parents[1] / "recipes"
ONCE = ("greedy",)  # the same for every budget and seed
OWN = ("label", "budgets", "seeds", "bar")  # of a method, beside options and models
TOP = ("task", "data", "skip", "limit", "budgets", "seeds", "settings", "method")
ENDPOINTS = ("endpoint", "prm_endpoint")  # addresses of servers
# What blocks of independent samples give: the row's name, and the choice.
SAMPLED = {
    "majority": "majority",
    "best-of-N": "argmax",
    "weighted best-of-N": "weighted",
    "confidence vote": "confidence",
}
EARLY, ORACLE = "early-stopped vote", "pass@N (oracle)"
KINDS: dict[str, tuple[type, str]] = {  # of entries for models; the others are texts
    "in_flight": (int, "a whole number"),
    "prm_noise": (float, "a finite number"),
    "chat_template_args": (dict, "a table"),
}
# What changes neither the particles nor their weights. A batch does not in float32.
OUTSIDE = ("batch", "choose", "device", "prm_device", "dialect", "in_flight")


@cache
def model_defaults() -> dict[str, Any]:
    """The names of all flags of models, with their defaults."""
    flags = Parser()
    add_models(flags)
    return vars(flags.parse_args([]))


@dataclass(frozen=True)
class Cell:
    """One method at one budget with one seed, over all problems."""

    label: str
    settings: Settings
    models: dict[str, Any]  # as `load_models` takes them
    task: str
    data: str
    bar: bool = False  # what the others are to pass

    @property
    def n(self) -> int:
        return self.settings.particles

    @property
    def key(self) -> str:
        """Names what decides the particles. Options that are None do not enter, so
        that an option to come leaves the keys of old records as they are.
        """
        what = {
            **asdict(self.settings),
            **self.models,
            **asdict(self.settings.proposal),
        }
        what |= dict(proposal=None, task=self.task, data=Path(self.data).name)
        # Wherever they are.
        what |= {name: True for name in ENDPOINTS if self.models.get(name)}
        if self.settings.choose == "draw":  # which draw is recorded
            what["draw"] = True
        probe = Path(str(self.models.get("prm")))
        if probe.suffix == ".safetensors" and probe.is_file():
            # One trained anew in its place is another one.
            what["probe"] = hashlib.sha256(probe.read_bytes()).hexdigest()[:10]
        told = {k: v for k, v in what.items() if v is not None and k not in OUTSIDE}
        text = json.dumps(told, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def header(self) -> dict[str, Any]:
        """For the records."""
        return dict(
            cell=self.key,
            label=self.label,
            n=self.n,
            seed=self.settings.seed,
            bar=self.bar,
            task=self.task,
            data=self.data,
            models={
                k: "served" if k in ENDPOINTS else v  # where is nobody's business
                for k, v in self.models.items()
                if v is not None
            },
            settings=asdict(self.settings),
        )


@dataclass(frozen=True)
class Recipe:
    task: str
    data: str
    cells: tuple[Cell, ...]  # a seed of all methods, then the next
    skip: int = 0
    limit: int | None = None

    @classmethod
    def read(cls, name: str, **changes: Any) -> "Recipe":
        """A shipped recipe by name or a TOML file.

        changes  replace top-level entries; those that are None do not. A model or a
                 reward model replaces those of methods without their own; of a method's
                 own budgets and seeds those remain that are asked for.
        Raises UserError.
        """
        file = locate(name)
        try:
            text = file.read_text(encoding="utf-8-sig")
            table = tomllib.loads(text)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read the recipe {file}: {error}") from error
        table |= {k: v for k, v in changes.items() if v is not None}
        data = Path(str(table.get("data", "")))
        if data.suffix and not data.is_absolute() and changes.get("data") is None:
            beside = file.parent / data  # a file is looked for beside its recipe first
            table["data"] = str(beside if beside.exists() else data)
        try:
            for entry in ("budgets", "seeds"):
                if changes.get(entry) is not None:
                    table["method"] = among(table.get("method"), entry, table[entry])
            return cls.of(table)
        except UserError as error:
            raise UserError(f"recipe {name}: {error}") from error

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Recipe":
        check(table, (*TOP, *model_defaults()), "recipe")
        methods = table.get("method")
        if not isinstance(methods, list) or not methods:
            raise UserError("it has no [[method]] table; give at least one")
        for name in ("task", "data"):
            if not isinstance(table.get(name), str):
                raise UserError(f'it names no {name}; give {name} = "..."')
        settings = table.get("settings", {})
        check(settings, options(), "[settings] table")
        task = task_named(table["task"])
        common = settings_from(dict(system=task.system) | settings)
        for name in ("skip", "limit"):
            whole(name, table.get(name, 0), 0)
        cells = [cell for m in methods for cell in cells_of(table, m, common)]
        if taken := {c.label for c in cells} & {*SAMPLED, EARLY, ORACLE}:
            raise UserError(
                f"{min(taken)!r} is a row that reports make of samples; give the "
                "method another label"
            )
        if len({(c.label, c.n, c.settings.seed) for c in cells}) < len(cells):
            raise UserError("two methods have one label; give each its own")
        seeds = list(dict.fromkeys(c.settings.seed for c in cells))
        return cls(
            table["task"],
            table["data"],
            tuple(sorted(cells, key=lambda c: seeds.index(c.settings.seed))),
            table.get("skip", 0),
            table.get("limit"),
        )


def cells_of(
    table: Mapping[str, Any], method: Mapping[str, Any], common: Settings
) -> Iterator[Cell]:
    """Of one method, seed by seed. Samples are drawn at the largest budget only: every
    smaller one is a block of them. What draws nothing runs once.
    """
    if not isinstance(method, dict):
        raise UserError("a method is not a table; write [[method]]")
    label = method.get("label", method.get("method"))
    if not isinstance(label, str):
        raise UserError('a method has no label; give label = "..."')
    check(method, (*OWN, *model_defaults(), *options()), f"method {label!r}")
    models = {
        name: method.get(name, table.get(name, default))
        for name, default in model_defaults().items()
    }
    if models["in_flight"] is not None:
        whole("in_flight", models["in_flight"], 1)
    for name, value in models.items():
        kind, word = KINDS.get(name, (str, "a text in quotes"))
        if value is not None and not fits(value, kind):
            raise UserError(f"method {label!r}: {name} is {word}, not {value!r}")
    named = {k: v for k, v in method.items() if k not in (*OWN, *models)}
    try:
        settings = settings_from(named, common)
    except UserError as error:
        raise UserError(f"method {label!r}: {error}") from error
    budgets = numbers("budgets", method.get("budgets", table.get("budgets")), 1)
    seeds = numbers("seeds", method.get("seeds", table.get("seeds")), None)
    if settings.method == "samples":
        budgets = [max(budgets)]
    if settings.method in ONCE:
        budgets, seeds = [1], seeds[:1]
    bar = method.get("bar", False)
    if not isinstance(bar, bool):
        raise UserError(f"method {label!r}: bar is true or false, not {bar!r}")
    for seed in seeds:
        for n in budgets:
            own = replace(settings, particles=n, seed=seed)
            yield Cell(label, own, models, table["task"], table["data"], bar)


def among(methods: Any, name: str, wanted: list[int]) -> Any:
    """The methods with those of their own budgets or seeds that are wanted. Those that
    have none of them are left out, and named on standard error.
    """
    if not isinstance(methods, list) or not all(isinstance(m, dict) for m in methods):
        return methods  # refused later
    found: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []
    for method in methods:
        if isinstance(own := method.get(name), list):
            method = method | {name: [n for n in own if n in wanted]}
        (left if method.get(name) == [] else found).append(method)
    if methods and not found:
        raise UserError(f"no method has any of the {name} {wanted}")
    if left:
        told = ", ".join(str(m.get("label", m.get("method"))) for m in left)
        print(f"pfref: without any of the {name} asked for: {told}", file=sys.stderr)
    return found


def options() -> tuple[str, ...]:
    """Of settings and proposal, but for what budgets and seeds give."""
    return tuple(name for name in OPTIONS if name not in ("particles", "seed"))


def check(table: Any, known: tuple[str, ...], what: str) -> None:
    if not isinstance(table, dict):
        raise UserError(f"the {what} is not a table")
    for name in table:
        if name not in known:
            told = hint(name, known, "known are " + ", ".join(known))
            raise UserError(f"the {what} has an unknown entry {name!r}; {told}")


def whole(name: str, value: Any, least: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{name} is a whole number, not {value!r}")
    if least is not None and value < least:
        raise UserError(f"{name} is at least {least}, not {value}")
    return value


def numbers(name: str, values: Any, least: int | None) -> list[int]:
    if not isinstance(values, list) or not values:
        raise UserError(f"{name} is a list of whole numbers, such as {name} = [1, 4]")
    found = [whole(f"each of {name}", value, least) for value in values]
    if len(set(found)) < len(found):
        raise UserError(f"{name} names one number twice")
    return found


def locate(name: str) -> Path:
    """A shipped recipe by name, or a file."""
    for file in (SHIPPED / f"{name}.toml", Path(name)):
        if os.path.isfile(file):  # False too for a name that is too long
            return file
    known = sorted(file.stem for file in SHIPPED.glob("*.toml"))
    raise UserError(
        f"there is no recipe {name}; name a TOML file, or one of {', '.join(known)}"
    )
