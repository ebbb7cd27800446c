"""All that decides a run, in two dataclasses: how steps are proposed, and the rest.

Their fields, with defaults, choices and help, make the command line, the options of
`solve`, the records and the key by which a run resumes. Imports nothing slow.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, get_args, get_origin

from .errors import UserError, hint

COLDEST = 1e-9  # temperature by which logits in float32 can be divided
ROUND = 4  # samples of a problem between two looks of the early-stopped vote


def option(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    """A field with its help, and what it may be if that is a closed list."""
    return field(default=default, metadata=dict(help=help, choices=choices))


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Raises UserError if it is none of those."""
    if value not in known:
        raise UserError(f"{name} is one of {', '.join(known)}, and not {value!r}")


WORDS = {
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    tuple: "a list of finite numbers",
}


def kind_of(annotation: Any) -> type:
    """What a field holds when it is not None: int, float, str, tuple or dict."""
    known = (int, float, str, tuple, dict)
    for part in (annotation, *get_args(annotation)):
        if (kind := get_origin(part) or part) in known:
            return kind
    raise TypeError(f"no argument can be made of {annotation}")


def fits(value: Any, annotation: Any) -> bool:
    kind = kind_of(annotation)
    if value is None:
        return type(None) in get_args(annotation)
    if kind is tuple:
        return isinstance(value, list | tuple) and all(fits(v, float) for v in value)
    if isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, Real) and math.isfinite(value)
    return isinstance(value, Integral if kind is int else kind)


def check_kinds(settings: Any) -> None:
    """Raises UserError for a field of another kind than it is declared. NumPy's numbers
    become Python's, and lists tuples, as records can hold them.
    """
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.type is Proposal:
            if not isinstance(value, Proposal):
                raise UserError(f"proposal is a Proposal, and not {value!r}")
            continue
        if not fits(value, f.type):
            raise UserError(f"{f.name} is {WORDS[kind_of(f.type)]}, not {value!r}")
        several = isinstance(value, list | tuple)
        value = tuple(map(plain, value)) if several else plain(value)
        object.__setattr__(settings, f.name, value)


def plain(value: Any) -> Any:
    """Python's number for NumPy's."""
    if not isinstance(value, Real) or isinstance(value, int | float):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


@dataclass(frozen=True)
class Proposal:
    """How steps are proposed. A particle cut by a limit is truncated, and ruled
    out.
    """

    temperature: float = option(
        0.8, "of the language model; 0 takes the likeliest token"
    )
    target_temperature: float | None = option(
        None, "of the target, if it is another: weights then pay for the difference"
    )
    target_power: float | None = option(
        None,
        "the target is the language model's probability of a whole solution to this "
        "power: above 1 without a reward model, Power-SMC",
    )
    delimiter: str = option("\n\n", "ends a step")
    step_tokens: int | None = option(
        None, "steps of exactly so many tokens instead of the delimiter"
    )
    max_step_tokens: int = option(1024, "tokens a step may take")
    max_tokens: int = option(2048, "generated tokens a solution may take")
    max_steps: int = option(40, "steps a solution may take")

    def __post_init__(self) -> None:
        check_kinds(self)
        target, power = self.target or (1.0, 1.0)
        if self.temperature and self.temperature < COLDEST:
            raise UserError(
                "a temperature is 0, which takes the likeliest token, or at least "
                f"{COLDEST:g}, and not {self.temperature:g}"
            )
        if target < COLDEST:
            raise UserError(
                f"the target's temperature is at least {COLDEST:g}, and not {target:g}"
            )
        if power <= 0:
            raise UserError(f"the target's power is positive: not {power}")
        if self.temperature == 0 and self.target:
            raise UserError(
                "temperature 0 proposes one sequence only and cannot be weighed "
                "against another temperature"
            )
        limits = (self.max_step_tokens, self.max_tokens, self.max_steps)
        if min(*limits, 1 if self.step_tokens is None else self.step_tokens) < 1:
            raise UserError("limits on tokens and steps are at least 1")
        if not self.delimiter:
            raise UserError(
                "the step delimiter is empty; give text that ends a step, such as a "
                "blank line"
            )
        if "\\n" in self.delimiter and not self.delimiter.replace("\\n", "").strip():
            raise UserError(
                r"the step delimiter is the letters \n, not a newline; in TOML it "
                "stands in double quotes"
            )

    @property
    def target(self) -> tuple[float, float] | None:
        """Temperature and power of the target, if it is not the proposal itself."""
        if self.target_temperature is None and self.target_power is None:
            return None
        own = (self.target_temperature, self.target_power)
        temperature, power = (1.0 if x is None else x for x in own)
        return temperature, power


UNWEIGHTED = ("greedy-search", "beam", "dvts")  # methods that rank particles


@dataclass(frozen=True)
class Settings:
    """How problems are solved: a method, its budget and its options."""

    method: str = option(
        "filter",
        "how solutions are searched or sampled",
        (
            *("greedy", "samples", "adaptive", "greedy-search", "beam", "dvts"),
            *("filter", "gibbs", "tempering"),
        ),
    )
    particles: int = option(
        16, "N, a problem's budget: samples, beams, or particles of all sweeps"
    )
    seed: int = option(0, "the same seed gives the same particles")
    choose: str | None = option(
        None,
        "the answer: most weight, highest reward, most reward, most particles, most "
        "confidence of the language model, or one draw by weight (default: the "
        "method's own)",
        ("vote", "argmax", "weighted", "majority", "confidence", "draw"),
    )
    potential: str = option(
        "odds",
        "what the reward becomes: r/(1-r), r, or r_t/r_t-1",
        ("odds", "score", "telescoping"),
    )
    tau: float = option(1.0, "divides the log potential")
    aggregation: str = option(
        "last",
        "how step scores make a prefix's score",
        ("last", "min", "prod", "model"),
    )
    finished: str = option(
        "absorbed",
        "are finished particles weighed again?",
        ("absorbed", "reweighted"),
    )
    resampling: str = option(
        "systematic",
        "scheme",
        ("multinomial", "stratified", "systematic", "residual"),
    )
    threshold: float = option(0.5, "resample when ESS <= threshold * N")
    anneal: str | None = option(
        None,
        "flattens the weights by which particles are resampled: power:0.5, ess:0.5 or "
        "entropic",
    )
    width: int = option(4, "of beam and dvts: N / width survive, or N / width trees")
    sweeps: int = option(4, "of gibbs and tempering")
    temperatures: tuple[float, ...] = option(
        (1.0, 2.0), "of tempering's chains, the first of which is the target's"
    )
    system: str | None = option(None, "system prompt for the language model")
    batch: int = option(128, "particles that share their passes")
    proposal: Proposal = field(default=Proposal())

    def __post_init__(self) -> None:
        check_kinds(self)
        for f in fields(self):
            value, known = getattr(self, f.name), f.metadata.get("choices")
            if known and value is not None:
                check_choice(f.name, value, known)
        for ok, line in (
            (
                self.particles >= 1,
                f"a population needs at least one particle, not {self.particles}",
            ),
            (
                self.batch >= 1,
                f"a batch has at least one particle, not {self.batch}",
            ),
            (
                self.tau > 0,
                f"the potential's temperature must be positive, not {self.tau}",
            ),
            (
                0 <= self.threshold <= 1,
                "the resampling threshold is a share of N between 0 and 1, not "
                f"{self.threshold}",
            ),
            (self.width >= 1, f"a beam's width is at least 1, not {self.width}"),
            (
                self.proposal.target is None or self.method not in UNWEIGHTED,
                f"{self.method} ranks by the reward alone and has no weights that "
                "could pay for another target temperature or power; leave it out, or "
                "take the filter",
            ),
            (self.sweeps >= 1, f"there is at least one sweep, not {self.sweeps}"),
            (
                len(self.temperatures) >= 1
                and self.temperatures[0] == 1.0
                and min(self.temperatures) >= 1,
                "chains have temperatures that begin with 1 and are not below it, not "
                f"{', '.join(map(str, self.temperatures))}",
            ),
        ):
            if not ok:
                raise UserError(line)

    @property
    def together(self) -> int:
        """Particles of one problem that share their passes: of a sweep, or a round."""
        if self.method == "greedy":
            return 1
        if self.method in ("gibbs", "tempering"):
            return max(1, self.particles // self.sweeps)
        if self.method == "adaptive":
            return min(self.particles, ROUND)
        return self.particles

    @property
    def at_once(self) -> int:
        """Problems of a batch: as many as fill it, at least one."""
        return max(1, self.batch // self.together)

    def but(self, **changes: Any) -> "Settings":
        """These settings with some changes. Raises UserError for an unknown name."""
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                if name in {f.name for f in fields(Proposal)}:
                    told = f"give proposal=Proposal({name}=...)"
                else:
                    told = hint(name, known, "see pfref.settings.Settings")
                raise UserError(f"there is no option {name!r}; {told}")
        return replace(self, **changes)
