"""Settings as flags of the command line and as values in a recipe: both are built from
the dataclasses' fields, so that a name, a default and a help text stand in one place.

Imports nothing slow.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from .errors import UserError, hint
from .settings import Proposal, Settings, kind_of


def number(text: str) -> float:
    """A finite number. `float` would take nan and inf too."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def numbers(text: str) -> tuple[float, ...]:
    """Finite numbers with commas between."""
    return tuple(number(part) for part in text.split(","))


def escaped(text: str) -> str:
    """A shell has no easy newline: \\n and \\t in the argument stand for theirs."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


# Every option by its name: the fields of settings, and of the proposal in them.
OPTIONS = {
    option.name: option
    for option in (*fields(Settings), *fields(Proposal))
    if option.name != "proposal"
}
READERS = {int: int, float: number, str: str, tuple: numbers}
ESCAPED = ("delimiter",)  # whose flags take \\n; others may hold LaTeX


def flag(name: str) -> str:
    """What the command line calls a field."""
    return "--" + name.replace("_", "-")


def add_options(group: Any, kind: type) -> None:
    """A flag for each field of a settings class, with its help, choices and default."""
    for option in fields(kind):
        if option.type is Proposal:
            continue
        default, what = option.default, option.metadata["help"]
        if default is not None:
            what += f" (default: {shown(default)})"
        names = [flag(option.name)]
        group.add_argument(
            *(["-n"] if option.name == "particles" else []),
            *names,
            default=default,
            type=escaped if option.name in ESCAPED else READERS[kind_of(option.type)],
            choices=option.metadata["choices"] or None,
            help=what.replace("%", "%%"),
        )


def shown(value: Any) -> str:
    """A default as one would type it."""
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    if isinstance(value, str):
        return value.replace("\n", "\\n").replace("\t", "\\t")
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_from(values: Mapping[str, Any], base: Settings | None = None) -> Settings:
    """Settings, with options of the proposal named beside the others.

    values  by option name, as the command line and recipes have them: others are
            refused, and so is a value of another kind
    Raises UserError.
    """
    base = base or Settings()
    for name in values:
        if name not in OPTIONS:
            told = hint(name, OPTIONS, "`pfref solve --help` lists them")
            raise UserError(f"there is no option {name!r}; {told}")
    own = {o.name for o in fields(Proposal)}
    outer = {k: v for k, v in values.items() if k not in own}
    inner = {k: v for k, v in values.items() if k in own}
    return base.but(**outer, proposal=replace(base.proposal, **inner))


def options_of(a: argparse.Namespace) -> Settings:
    """The settings that the flags of `add_options` ask for."""
    return settings_from({k: v for k, v in vars(a).items() if k in OPTIONS})
