"""What a reward model has read of many partial solutions, and its scores of steps."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .cache import RaggedCache
from .errors import UserError


@dataclass
class Judgement:
    """R rows, which are P problems x N copies; row r is fed in slot r of the cache.

    A row's cache stays where it is when the row is forked, and follows when it is fed.
    """

    problems: list[str]
    prompts: list[list[int]]  # for each problem, the ids that its rows share
    cache: RaggedCache
    read: list[tuple[int, ...]]  # for each slot, the ids in it after the prompt
    parents: list[int]  # (R,) the slot that has what each row has read
    known: list[int]  # (R,) steps of each row that were scored
    scores: Tensor  # (R, T) log-odds of every step, T >= 1; +inf where there is none
    scored: Tensor  # (P,) tokens fed for each problem, dead branches too

    @classmethod
    def of(
        cls, problems: list[str], prompts: list[list[int]], cache: RaggedCache
    ) -> "Judgement":
        rows = len(cache.held)
        return cls(
            problems,
            prompts,
            cache,
            read=[()] * rows,
            parents=list(range(rows)),
            known=[0] * rows,
            scores=torch.full((rows, 1), torch.inf, device=cache.device),
            scored=torch.tensor([len(prompt) for prompt in prompts]),
        )

    def problem_of(self, row: int) -> int:
        return row // (len(self.parents) // len(self.problems))

    def fork(self, ancestors: Tensor) -> None:
        """Row r becomes a copy of row ancestors[r], (R,)."""
        chosen = ancestors.tolist()
        self.parents = [self.parents[row] for row in chosen]
        self.known = [self.known[row] for row in chosen]
        self.scores = self.scores[ancestors.to(self.scores.device)]

    def make_room(self, steps: int) -> None:
        """For the scores of so many steps."""
        missing = steps - self.scores.shape[1]
        if missing > 0:
            self.scores = nn.functional.pad(self.scores, (0, missing), value=torch.inf)

    def follow(self, fed: list[int]) -> None:
        """Each row that is to be fed gets what it has read into its own slot.

        Another row that has read the same, but is not fed now, has lost it. It begins
        with whatever its own slot holds should it move again: slower, but as right.
        """
        copied = [row for row in fed if self.parents[row] != row]
        sources = [self.parents[row] for row in copied]
        self.cache.copy(copied, sources)
        for row, ids in zip(copied, [self.read[s] for s in sources], strict=True):
            self.read[row] = ids
        written = set(fed)
        self.parents = [
            row if row in written or slot in written else slot
            for row, slot in enumerate(self.parents)
        ]

    def unread(self, row: int, ids: list[int], place: int) -> list[int]:
        """Go back to where `ids`, a whole partial solution, begin to differ from what
        the row has read. Returns the ids from there, or from `place` if that is before.
        """
        problem = self.problem_of(row)
        prompt = self.prompts[problem]
        if ids[: len(prompt)] != prompt:
            raise UserError(
                "the reward model's tokenizer reads the problem otherwise once a "
                f"solution follows it: {self.problems[problem][-40:]!r}; end it with a "
                "full stop"
            )
        own, read = ids[len(prompt) :], self.read[row]
        most = min(len(read), place - len(prompt))
        kept = next((k for k in range(most) if own[k] != read[k]), most)
        if kept < len(read):
            self.cache.rewind([row], [kept])
        self.read[row] = tuple(own)
        self.scored[problem] += len(own) - kept
        return own[kept:]


class Scorer(Protocol):
    """What gives partial solutions their rewards: `prm.RewardModel`, `probe.Probe`,
    `reward_function.RewardFunction`.
    """

    def prompt(self, problem: str) -> list[int]: ...
    def start(self, problems: Sequence[str], copies: int) -> Judgement: ...

    def fork(self, judgement: Judgement, ancestors: Tensor) -> None:
        """Row r becomes a copy of row ancestors[r], (R,)."""
        judgement.fork(ancestors)

    def extend(
        self,
        judgement: Judgement,
        moved: Tensor,
        steps: Sequence[Sequence[str]],
        aggregation: str = "last",
        states: Tensor | None = None,
    ) -> None: ...

    def log_odds(self, judgement: Judgement, aggregation: str = "last") -> Tensor:
        """Of every row's prefix, (R,) float64, aggregated over its steps."""
        return AGGREGATIONS[aggregation](judgement.scores).double()


# From the scores of R rows, (R, T), +inf where a row has none, to (R,).
Aggregation = Callable[[Tensor], Tensor]


def last(scores: Tensor) -> Tensor:
    """The score of the last step that has one; +inf, which is r = 1, before that."""
    order = torch.arange(scores.shape[1], device=scores.device)
    place = torch.where(scores < torch.inf, order, 0).amax(1, keepdim=True)
    return scores.gather(1, place)[:, 0]


def lowest(scores: Tensor) -> Tensor:
    """The worst step's score."""
    return scores.amin(-1)


def product(scores: Tensor) -> Tensor:
    """The log-odds of the product of all steps' probabilities."""
    log_r = nn.functional.logsigmoid(scores.double()).sum(-1)
    return log_r - torch.log(-torch.expm1(log_r))


AGGREGATIONS: dict[str, Aggregation] = {
    "last": last,
    "min": lowest,
    "prod": product,
    "model": last,
}


class StepScorer(Scorer):
    """A scorer that tells the log-odds of each new step once, and has no cache."""

    device: torch.device

    @abstractmethod
    def scores(
        self,
        judgement: Judgement,
        rows: list[int],
        steps: Sequence[Sequence[str]],
        states: Tensor | None,
    ) -> Tensor:
        """Of some rows, in their order, (B,): the score of the last step of each."""

    def prompt(self, problem: str) -> list[int]:
        """Nothing is tokenised."""
        return []

    def start(self, problems: Sequence[str], copies: int) -> Judgement:
        cache = RaggedCache(len(problems) * copies, self.device)  # stays empty
        return Judgement.of(list(problems), [[] for _ in problems], cache)

    @torch.inference_mode()
    def extend(
        self,
        judgement: Judgement,
        moved: Tensor,
        steps: Sequence[Sequence[str]],
        aggregation: str = "last",
        states: Tensor | None = None,
    ) -> None:
        """Score the last step of the rows in `moved`, (R,); steps[r] are all of row
        r's. The aggregation `model`, one score for all, is the last step's.
        """
        rows = moved.nonzero()[:, 0].tolist()
        if not rows:
            return
        last = [max(0, len(steps[row]) - 1) for row in rows]
        judgement.make_room(max(last) + 1)
        found = self.scores(judgement, rows, steps, states)
        row, step = torch.tensor([rows, last], device=self.device)
        judgement.scores[row, step] = found.to(judgement.scores)


def consecutive(slots: list[int]) -> Sequence[int]:
    """As a range, if they are one: the cache then need not gather their keys."""
    whole = range(slots[0], slots[-1] + 1)
    return whole if len(whole) == len(slots) else slots
