"""What the particle filter is compared with: greedy decoding, and choices among
independent samples.

Independent samples are the same filter with its resampling turned off, so all methods
share one code path.
"""

from collections.abc import Sequence
from typing import Any

from .answers import boxed
from .inputs import listed
from .policy import Policy
from .prm import RewardModel
from .randomness import generator
from .settings import Proposal, Settings
from .solution import Solution, choose
from .solver import in_batches, solve


def greedy(
    problems: Sequence[str],
    lm: Policy,
    max_tokens: int = 2048,
    system: str | None = None,
) -> list[str | None]:
    """The answer of the likeliest token at every place, one for each problem.

    In batches, as `solve` takes problems; no reward model.
    """
    proposal = Proposal(
        temperature=0,
        step_tokens=max_tokens,
        max_step_tokens=max_tokens,
        max_tokens=max_tokens,
    )
    problems = listed(problems)
    prompts = [lm.prompt(problem, system) for problem in problems]
    found: list[str | None] = []
    for part in in_batches(len(prompts), Settings(particles=1)):
        paths = lm.start(prompts[part], 1, proposal)
        sources = [generator(problem) for problem in problems[part]]
        while (active := ~(paths.ended | paths.truncated)).any():
            lm.extend(paths, active, sources)
        found += [boxed(paths.text(row)) for row in range(paths.rows)]
    return found


def independent(
    problems: Sequence[str],
    lm: Policy,
    prm: RewardModel,
    samples: int,
    **options: Any,
) -> list[Solution]:
    """N samples of each problem that never meet: `solve` with threshold 0.

    The choices below read them; their own `answer` is a vote by the product of the
    odds, another method.
    """
    return solve(listed(problems), lm, prm, samples, threshold=0.0, **options)


def best_of(solution: Solution) -> str | None:
    """The answer that the reward model scores highest: of independent samples,
    best-of-N (Cobbe et al. 2021).
    """
    return answer_by("argmax", solution)


def weighted_best_of(solution: Solution) -> str | None:
    """The answer with the largest sum of scores r (Li et al. 2023)."""
    return answer_by("weighted", solution)


def majority(solution: Solution) -> str | None:
    """Self-consistency: the commonest answer, without the reward model (Wang et al.
    2023).
    """
    return answer_by("majority", solution)


def answer_by(choice: str, solution: Solution) -> str | None:
    chosen = choose(choice, solution.particles, solution.same)
    return chosen.answer if chosen else None
