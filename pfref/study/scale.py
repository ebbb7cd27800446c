"""What a plan of many problems costs, computed from the tokens that records counted:
hours and money, which model takes them, and how many problems keep a server busy.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from ..errors import UserError
from .recipe import Recipe
from .records import Run, Study, read
from .stragglers import Steps, populations, told, utilisation


def scale(
    recipe: Recipe,
    folder: Path,
    problems: float,
    particles: int | None = None,
    gpus: int = 1,
    policy_speed: float | None = None,
    prm_speed: float | None = None,
    price: float | None = None,
    slots: int = 256,
    sharing: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The plan for so many problems with N particles, in proportion to the recorded
    budget that is nearest; speeds are tokens a second of one GPU, and slots the rows
    that one GPU's server writes at once. Raises UserError.

    sharing  processes that shared one GPU when its records were made. If there were
             several parts and nobody says, hours are those of a process
    """
    for name, value in [
        *(("problems", problems), ("particles", particles), ("gpus", gpus)),
        *(("policy-speed", policy_speed), ("prm-speed", prm_speed)),
        *(("price", price), ("slots", slots), ("sharing", sharing)),
    ]:
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} is a number above 0, not {value:g}")
    if not (problems >= 1 and float(problems).is_integer()):
        raise UserError(f"--problems is a whole number such as 1e6, not {problems:g}")
    study = read(folder)
    label, recorded = chosen(recipe, study, folder)
    n = particles or max(recorded)
    nearest = min(recorded, key=lambda size: abs(math.log(size / n)))
    runs = recorded[nearest]
    share = n / nearest
    prompt = mean(run.counts[0] for run in runs)
    written = share * mean(run.counts[1] for run in runs)
    judged = share * mean(run.counts[2] for run in runs)
    seconds = share * mean(run.batch[3] / run.batch[0] for run in runs)
    counted = judged > 0
    if not counted and prm_speed is not None:
        judged = prompt + written  # as one with a pass of its own would read
    measured = policy_speed is None
    if sharing and not measured:
        raise UserError("--sharing is for the recorded speed; leave --policy-speed out")
    if counted and measured != (prm_speed is None):
        raise UserError(
            "these records time policy and reward model together, so that neither's "
            "part is known: give both --policy-speed and --prm-speed, or neither"
        )
    if policy_speed is None and not (seconds > 0 and written > 0):
        raise UserError("these records have no times; give --policy-speed")
    speed = policy_speed or written / seconds * (sharing or 1)
    reading = judged / prm_speed if prm_speed else 0.0
    each = written / speed + reading
    known = not (counted and measured)  # the two parts of the time, each for itself
    hours = problems * each / 3600
    rng = np.random.default_rng(seed)
    ran = machines(study, {run.key for run in runs})
    of_a_process = measured and sharing is None and ran["parts"] > 1
    source, origin = free_of_resampling(recipe, study, label, runs)
    paths, texts = populations(source, rng)
    again = reread(paths, prompt)
    return dict(
        problems=int(problems),
        particles=n,
        gpus=gpus,
        method=label,
        recorded=dict(n=nearest, problems=len({run.id for run in runs}), **ran),
        tokens=dict(prompt=prompt, written=written, judged=judged, counted=counted),
        speed=dict(policy=speed, prm=prm_speed, measured=measured, together=not known),
        gpu_hours=hours,
        of_a_process=of_a_process,
        days=hours / 24 / gpus,
        price=price,
        money=None if price is None or of_a_process else hours * price,
        time_share=dict(policy=1 - reading / each, prm=reading / each)
        if known
        else None,
        # Below so many times the policy's tokens a second, the reward model takes
        # more of the time.
        bottleneck=(judged or prompt + written) / written,
        cache=dict(
            policy=dict(once=prompt + written, again=n * again[0] + written),
            prm=dict(once=judged or prompt + written, again=n * again[1]),
        ),
        steps=dict(origin=origin, texts=texts, **told(paths)),
        stragglers=dict(
            slots=slots, seed=seed, utilisation=utilisation(paths, n, slots, rng)
        ),
    )


def mean(values: Any) -> float:
    return float(np.mean(list(values)))


def machines(study: Study, keys: set[str]) -> dict[str, Any]:
    """What ran these cells, and in how many parts that may have shared a machine."""
    every = [session["session"] for session in study.sessions]
    asked = [s for s in every if keys & {key for key, _ in s.get("cells", [])}]
    found = asked or every
    places = [s.get("environment", {}) for s in found]
    named = {str(p.get("gpu") or p.get("processor") or "unknown") for p in places}
    parts = max((s.get("part", [1, 1])[1] for s in found), default=1)
    return dict(machines=sorted(named), parts=parts)


def recorded_runs(study: Study, label: str) -> Iterator[tuple[int, Run]]:
    """With their budgets the current runs of a method that have particles."""
    cells = {c["cell"]: c for c in study.current().values() if c["label"] == label}
    for id in study.lines:
        for run in study.runs(id):
            if run.key in cells and run.paths:
                yield cells[run.key]["n"], run


def chosen(
    recipe: Recipe, study: Study, folder: Path
) -> tuple[str, dict[int, list[Run]]]:
    """The recipe's first filter that has records, else its first method that has, and
    its runs by budget.
    """
    if not study.lines:
        raise UserError(f"{folder} holds no records; `pfref run` writes them")
    cells = sorted(recipe.cells, key=lambda cell: cell.settings.method != "filter")
    for label in dict.fromkeys(cell.label for cell in cells):
        found: dict[int, list[Run]] = {}
        for n, run in recorded_runs(study, label):
            found.setdefault(n, []).append(run)
        if found:
            return label, found
    raise UserError(f"{folder} holds no records of this recipe's methods")


def free_of_resampling(
    recipe: Recipe, study: Study, label: str, runs: Sequence[Run]
) -> tuple[Sequence[Run], str]:
    """Runs whose steps are measured, and their method: independent samples of the same
    models where there are any. After resampling, the first steps of many particles are
    one and the same.
    """
    models = {c["label"]: c["models"] for c in study.current().values()}
    for cell in recipe.cells:
        same = models.get(cell.label) == models[label]
        if cell.settings.method == "samples" and same:
            free = [run for _, run in recorded_runs(study, cell.label)]
            return (free, cell.label) if free else (runs, label)
    return runs, label


def reread(recorded: Sequence[Steps], prompt: float) -> tuple[float, float]:
    """Tokens of one row, if every step fed all that comes before it to the policy, and
    all up to its end to the reward model.
    """
    paths = [steps for population in recorded for steps in population]
    before = mean((prompt + steps.cumsum() - steps).sum() for steps in paths)
    through = mean((prompt + steps.cumsum()).sum() for steps in paths)
    return before, through


def as_text(plan: dict[str, Any]) -> str:
    """The plan for a terminal."""
    tokens, speed, cache = plan["tokens"], plan["speed"], plan["cache"]
    basis, steps, count = plan["recorded"], plan["steps"], plan["problems"]
    source = "given"
    if speed["measured"]:
        source = f"measured on {', '.join(basis['machines'])}"
        if plan["of_a_process"]:
            source += f", by each of {basis['parts']} processes"
        if speed["together"]:
            source += ", reading by the reward model included"
    judged = f"{tokens['judged']:,.0f} judged"
    if not tokens["counted"]:
        judged += (
            " (none recorded: as a reward model with a pass of its own)"
            if tokens["judged"]
            else " (the reward model reads the policy's states)"
        )
    share = plan["time_share"]
    parts = "not known: the records time both models together"
    if share:
        parts = f"policy {share['policy']:.0%}, reward model {share['prm']:.0%}"
    speeds = f"{speed['policy']:,.0f} tokens/s written ({source})"
    if speed["prm"]:
        speeds += f", {speed['prm']:,.0f} judged (given)"
    unit = "GPU hours"
    if plan["of_a_process"]:
        unit = "hours of a process (if some shared a GPU, --sharing says how many)"
    own = "" if tokens["counted"] else "with a pass of its own, "
    money = "" if plan["money"] is None else f", {plan['money']:,.0f} in money"
    saved = [
        f"{who} {c['once']:,.0f} a problem, not {c['again']:,.0f} "
        f"({c['again'] / c['once']:.1f} times)"
        for who, c in (("policy", cache["policy"]), ("reward model", cache["prm"]))
    ]
    lines = {
        "basis": f"{plan['method']!r} with N = {basis['n']} on {basis['problems']} "
        "recorded problems, in proportion to N",
        "a problem": f"{tokens['written']:,.0f} tokens written, {judged}",
        "in all": f"{count * tokens['written'] / 1e9:,.3g} billion written, "
        f"{count * tokens['judged'] / 1e9:,.3g} billion judged",
        "a GPU": speeds,
        "cost": f"{plan['gpu_hours']:,.1f} {unit}, {plan['days']:,.1f} days on "
        f"{plan['gpus']} GPUs{money}",
        "time": parts,
        "bottleneck": f"the reward model, {own}if it reads fewer than "
        f"{plan['bottleneck']:.2f} tokens while the policy writes one",
        "prefix cache": "; ".join(saved),
        "a step": f"{steps['mean']:.0f} tokens, eight in ten {steps['low']:.0f} to "
        f"{steps['high']:.0f}; {steps['per_path']:.1f} steps a path (of "
        f"{steps['origin']!r}"
        + (")" if steps["texts"] else "; the texts are lacking, so spread by a guess)"),
    }
    rows = plan["stragglers"]["utilisation"]
    slots = plan["stragglers"]["slots"]
    full = [min(1, row["in_flight"] * plan["particles"] / slots) for row in rows]
    table = {
        "in flight": [f"{row['in_flight']}" for row in rows],
        "rows for": [f"{value:.0%}" for value in full],
        "at work": [f"{row['at_work']:.0%}" for row in rows],
    }
    return "\n".join(
        [
            f"{count:,} problems x {plan['particles']} particles",
            *(told_as(name, text) for name, text in lines.items()),
            f"a GPU's server of {slots} slots, when each population waits for its "
            "slowest row (simulated)",
            *(
                f"  {name:14}" + "".join(f"{cell:>6}" for cell in cells)
                for name, cells in table.items()
            ),
        ]
    )


def told_as(name: str, text: str) -> str:
    return fill(text, 88, initial_indent=f"  {name:14}", subsequent_indent=" " * 16)
