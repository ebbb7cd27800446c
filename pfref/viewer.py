"""A run that one can step through: one HTML page that needs no network.

Nobody vouches for what the models wrote, so all of it is escaped, and the page lets a
browser run nothing but its own script.
"""

import base64
import hashlib
import html
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from string import Template

from .errors import writing
from .history import CUT, OUT, History
from .methods import ANSWERS
from .settings import Settings
from .solution import Solution

TEMPLATE = Path(__file__).with_name("viewer.html")
COLUMN, ROW, LEFT, TOP = 64, 20, 48, 40  # of the picture, in pixels
TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
STAR = (
    ' <span aria-hidden="true">★</span><span class="unseen">, on the chosen line</span>'
)


def page(
    history: History,
    solution: Solution,
    settings: Settings | None = None,
    models: Mapping[str, object] | None = None,
) -> str:
    """The page as text, the same for the same run.

    settings, models  told on the page if they are given
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    chosen, steps = solution.chosen, range(len(history.moments))
    return Template(template).substitute(
        policy=policy(template),
        title=shown(f"Step by step: {solution.problem[:60]}"),
        facts=listed(facts(history, solution, settings)),
        solution=written(chosen.text if chosen else "", "none is left"),
        guide=WEIGHED if history.weighed else SEARCHED,
        settings=listed(told(solution, settings, models)),
        steps=len(steps),
        size="weight" if history.weighed else "r",
        tree=tree(history),
        descent=descent(history),
        sections="\n".join(section(history, solution, t) for t in steps),
    )


WEIGHED = """The weight of a particle grows with r; the weights of a step sum to 100%.
The effective sample size says how many particles of equal weight the population is
worth. Where it is low, the population is resampled: heavy particles go on as several
copies, light ones end, and all weigh the same again."""
SEARCHED = "The best by r survive and go on as several copies; the others end."


def shown(text: str) -> str:
    """As HTML: no markup, no character that a page or a file cannot hold, and none
    that turns around the text beside it.
    """

    def plain(c: str) -> bool:
        unheld = unicodedata.category(c) in ("Cc", "Cs")
        return c in "\n\t" or not (unheld or unicodedata.bidirectional(c) in TURNS)

    return html.escape("".join(c if plain(c) else "\ufffd" for c in text))


def written(text: str, otherwise: str) -> str:
    """By a model, in a direction of its own: it may be Arabic or Hebrew."""
    whole = text.strip("\n")
    return f"<bdi>{shown(whole)}</bdi>" if whole.strip() else otherwise


def listed(facts: Mapping[str, object]) -> str:
    return "\n".join(
        f'<dt>{shown(name)}</dt><dd class="text">{written(str(fact), "none")}</dd>'
        for name, fact in facts.items()
    )


def policy(template: str) -> str:
    """What a browser may run or load of the page: its own script and style."""

    def own(tag: str) -> str:
        inside = template.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        return f"{tag}-src 'sha256-{digest}'"

    return f"default-src 'none'; {own('script')}; {own('style')}; base-uri 'none'"


def facts(
    history: History, solution: Solution, settings: Settings | None
) -> dict[str, object]:
    found: dict[str, object] = dict(Problem=solution.problem, Answer=solution.answer)
    if history.weighed:
        shares = solution.votes.items()
        votes = [f"{answer or 'no answer'} ({share:.0%})" for answer, share in shares]
        found["Votes by weight"] = ", ".join(votes)
    if settings:
        found["Method"] = settings.method
    size = f"{history.particles}, in {len(history.moments)} steps"
    if (count := len(solution.particles) // history.particles) > 1:
        number = history.first // history.particles + 1
        size += f"; population {number} of {count}, which gave the answer"
    return found | dict(Particles=size)


def told(
    solution: Solution, settings: Settings | None, models: Mapping[str, object] | None
) -> dict[str, object]:
    """Models, settings and cost. No times: they are never the same twice."""
    found = {name.replace("_", " "): value for name, value in (models or {}).items()}
    if settings:
        options = asdict(settings)
        options |= options.pop("proposal")
        options["choose"] = settings.choose or ANSWERS[settings.method]
        for name, value in options.items():
            plain = not isinstance(value, str) or value.isprintable()
            if value is not None:
                found[name.replace("_", " ")] = value if plain else repr(value)
    if solution.log_evidence is not None:
        found["log evidence"] = f"{solution.log_evidence:.2f}"
    cost = solution.cost
    found["tokens"] = (
        f"{cost.prompt_tokens} prompt + {cost.generated_tokens} generated, "
        f"{cost.scored_tokens} scored"
    )
    return found


def rounded(r: float | None) -> str:
    """Never 0 or 1 if it is not quite."""
    if r is None:
        return "not scored"
    return "&lt;0.001" if 0 < r < 0.001 else "&gt;0.999" if r > 0.999 else f"{r:.3f}"


def tree(history: History) -> str:
    """Steps as columns, particles as marks: an SVG picture."""
    living, line, size = history.living, history.line, history.particles

    def kind(t: int, n: int) -> str:
        return "line" if n in line[t] else "alive" if n in living[t] else "ended"

    def at(t: int, n: int) -> tuple[int, int]:
        return LEFT + COLUMN * t + COLUMN // 2, TOP + ROW * n + ROW // 2

    width, height = LEFT + COLUMN * len(history.moments), TOP + ROW * size + ROW // 2
    edges: dict[str, list[str]] = {"ended": [], "alive": [], "line": []}
    bands, marks = [], []
    for t, now in enumerate(history.moments):
        x = at(t, 0)[0]
        bands.append(
            f'<rect class="band" x="{x - COLUMN // 2}" y="0" width="{COLUMN}" '
            f'height="{height}"/>'
            f'<text x="{x}" y="24" text-anchor="middle">step {t + 1}</text>'
        )
        # 1: as the particles have on average.
        shares = [w * size for w in now.weights]
        if not history.weighed:
            shares = [2 * (r or 0.0) for r in now.rewards]
        for n, parent in enumerate(history.parents(t)):
            (x, y), own = at(t, n), kind(t, n)
            if parent is not None:
                a, b = at(t - 1, parent)
                edges[own].append(f'<path class="edge {own}" d="M{a} {b}L{x} {y}"/>')
            radius = max(2.5, min(9.0, 4 * math.sqrt(shares[n])))
            marks.append(mark(x, y, radius, history.state(t, n), own))
    names = [
        f'<text x="{LEFT - 8}" y="{at(0, n)[1] + 4}" text-anchor="end">{n + 1}</text>'
        for n in range(size)
    ]
    return "\n".join(
        (
            f'<svg role="img" aria-labelledby="name what" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}">',
            '<title id="name">Who descends from whom</title>',
            f'<desc id="what">{descent(history)}</desc>',
            *(*bands, *names, *edges["ended"], *edges["alive"], *edges["line"], *marks),
            "</svg>",
        )
    )


def mark(x: int, y: int, radius: float, state: str, own: str) -> str:
    """A square if finished, a cross if ruled out, a circle otherwise."""
    if state in (CUT, OUT):
        return f'<path class="cross" d="M{x - 4} {y - 4}l8 8m0 -8l-8 8"/>'
    if state != "finished":
        return f'<circle class="dot {own}" cx="{x}" cy="{y}" r="{radius:.1f}"/>'
    side = radius * math.sqrt(math.pi)  # of the same area
    return (
        f'<rect class="dot {own}" x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" '
        f'width="{side:.1f}" height="{side:.1f}"/>'
    )


def descent(history: History) -> str:
    """The picture in words."""
    size, line = history.particles, [str(n + 1) for own in history.line for n in own]
    words = (
        f"All {size} particles of the last step descend from "
        f"{len(history.living[0])} of the first step."
    )
    if line:
        words += f" The chosen solution's line, by places: {', '.join(line)}."
    return words


def section(history: History, solution: Solution, t: int) -> str:
    """Moment t in words and as a table."""
    last = t == len(history.moments) - 1
    names = ["Particle", "Parent", "Text", "r"]
    names += ["Weight"] * history.weighed + ["State"] + ["Children"] * (not last)
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    return "\n".join(
        (
            f'<section class="step" aria-labelledby="step-{t + 1}">',
            f'<h3 id="step-{t + 1}">Step {t + 1} of {len(history.moments)}</h3>',
            f"<p>{summary(history, t)}</p>",
            f'<div class="scroll" role="region" aria-label="Table of step {t + 1}" '
            'tabindex="0">',
            f"<table><caption>The particles of step {t + 1}</caption>",
            f"<thead><tr>{heads}</tr></thead><tbody>",
            *rows(history, solution, t, last),
            "</tbody></table></div></section>",
        )
    )


def rows(history: History, solution: Solution, t: int, last: bool) -> list[str]:
    """Of a step's table, one for each particle."""
    now, texts, line = history.moments[t], history.added(t), history.line[t]
    weights, rewards = now.weights, now.rewards
    children: list[list[str]] = [[] for _ in texts]
    for child, parent in enumerate(now.ancestors):
        children[parent].append(str(child + 1))
    found = []
    for n, before in enumerate(history.parents(t)):
        state = history.state(t, n)
        if last and (answer := solution.particles[history.first + n].answer):
            state += f", answer {answer}"
        cells = ["none" if before is None else str(before + 1)]
        cells += [written(texts[n], "(none)"), rounded(rewards[n])]
        cells += [f"{weights[n]:.1%}"] * history.weighed + [written(state, "")]
        cells += [", ".join(children[n]) or "none"] * (not last)
        on, style = (STAR, ' class="line"') if n in line else ("", "")
        head = f'<tr{style}><th scope="row">{n + 1}{on}</th>'
        found.append(head + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return found


def summary(history: History, t: int) -> str:
    """What happens to the population after moment t."""
    now, size = history.moments[t], history.particles
    parts = []
    if history.weighed:
        parts.append(f"Effective sample size {now.ess:.1f} of {size}.")
    if t == len(history.moments) - 1:
        parts.append("This is the last step.")
    elif not now.resampled:
        parts.append("Not resampled: every particle goes on.")
    else:
        copies = Counter(now.ancestors)
        parts += ["Resampled:"] * history.weighed
        on, ends = len(copies), size - len(copies)
        goes = "particle goes" if on == 1 else "particles go"
        parts.append(f"{on} {goes} on, {ends} end{'s' * (ends == 1)}.")
        most = max(copies.values())
        parts.append(f"None has more than {most} child{'ren' * (most > 1)}.")
    return " ".join(parts)


def save(file: Path, text: str) -> None:
    """Raises UserError if the file cannot be written."""
    with writing(file):
        file.write_text(text, encoding="utf-8", newline="\n")
