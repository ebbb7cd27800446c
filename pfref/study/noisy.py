"""A worse reward model made from a better one, to see how much a method needs.

Every prefix gets a fixed normal error on its log-odds: asked twice, the model errs the
same way, as a badly trained one does. The more noise, the smaller the chance that a
right solution scores above a wrong one of the same problem.
"""

import torch

from ..judgement import Judgement
from ..prm import RewardModel
from ..randomness import generator
from ..readers import Rendered


class NoisyRewardModel(RewardModel):
    """`prm` with noise of standard deviation `noise` on its log-odds, and a factor
    `confidence` above 1 that makes it overconfident.

    It shares the model's weights. Each set of errors is named by `seed`.
    """

    def __init__(
        self, prm: RewardModel, noise: float, confidence: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__(prm.body, prm.head, prm.tokenizer, prm.family)
        self.noise, self.confidence, self.seed = noise, confidence, seed

    def feed(
        self, j: Judgement, new: dict[int, list[int]], fed: dict[int, Rendered]
    ) -> None:
        super().feed(j, new, fed)
        for row in new:
            ids, places = fed[row]
            problem, before = j.problems[j.problem_of(row)], len(ids) - len(new[row])
            for step, place in enumerate(places):
                if place >= before:
                    source = generator("noise", self.seed, problem, ids[: place + 1])
                    error = self.noise * float(torch.randn((), generator=source))
                    j.scores[row, step] = self.confidence * (
                        j.scores[row, step] + error
                    )
