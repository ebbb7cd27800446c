"""A reward of your own: any function of a problem and the steps so far."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .errors import UserError
from .judgement import Judgement, StepScorer

# Problems, and for each the steps of a partial solution -> log-odds, one for each.
Rewards = Callable[[list[str], list[tuple[str, ...]]], Sequence[float] | Tensor]


class RewardFunction(StepScorer):
    """Log-odds that a partial solution will be right, by a function.

        RewardFunction(lambda problems, solutions: [-len(steps) for steps in solutions])

    rewards  is given the solutions that have a new step, of all problems at once, and
             returns the log-odds of each: 0 for a probability of one half, -inf for no
             weight from here on (a majority still counts a solution that is finished).
             It is asked once for each new step of each particle.
    """

    def __init__(self, rewards: Rewards) -> None:
        self.rewards, self.device = rewards, torch.device("cpu")

    def scores(
        self,
        judgement: Judgement,
        rows: list[int],
        steps: Sequence[Sequence[str]],
        states: Tensor | None,
    ) -> Tensor:
        """Raises UserError if there is not one number for each, or one is NaN or
        +inf.
        """
        problems = [judgement.problems[judgement.problem_of(row)] for row in rows]
        found = self.rewards(problems, [tuple(steps[row]) for row in rows])
        try:
            scores = torch.as_tensor(found, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the reward function gave no numbers, but {type(found).__name__}: "
                f"return a list, one for each of {len(rows)} solutions"
            ) from error
        if scores.shape != (len(rows),):
            raise UserError(
                f"the reward function gave numbers of shape {tuple(scores.shape)} for "
                f"{len(rows)} solutions; return one for each"
            )
        if (scores.isnan() | (scores == torch.inf)).any():
            raise UserError(
                "a reward is NaN or plus infinity; return finite log-odds, or -inf to "
                "rule a solution out"
            )
        return scores
