"""Process reward models: how likely is each step, and so each prefix, to be right?

The scores are causal, so a new step is scored by feeding that step alone, with a cache that forks as the
particles do. A score is kept as its log-odds z, the difference of the head's two logits in float32:
in bfloat16 a probability rounds to 1.0 above z = 6.2, and one particle would take all the weight.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from .cache import RaggedCache
from .errors import UserError
from .loading import (
    best_device,
    best_dtype,
    context_of,
    load_tokenizer,
    load_weights,
    locate,
)


@dataclass(frozen=True)
class Family:
    """How one family of reward models is fed. Others join FAMILIES; nothing else here knows their names."""

    separator: str  # one token; the score is read there
    system: str
    head: str  # prefix of the head's tensors in the weights


FAMILIES = {
    "Qwen2ForProcessRewardModel": Family(
        separator="<extra_0>",
        system="Please reason step by step, and put your final answer within \\boxed{}.",
        head="score.",
    )
}


@dataclass
class Judgement:
    """What the reward model has read of P x N particles, R rows."""

    cache: RaggedCache
    scores: Tensor  # (R, T) log-odds of every step so far
    parents: Tensor  # (R,) row that each row's cache is still in
    scored: Tensor  # (P,) tokens fed for each problem, dead branches too


def last(scores: Tensor) -> Tensor:
    """The score of the last step."""
    return scores[:, -1]


def lowest(scores: Tensor) -> Tensor:
    """The worst step's score."""
    return scores.amin(-1)


def product(scores: Tensor) -> Tensor:
    """The log-odds of the product of all steps' probabilities."""
    log_r = nn.functional.logsigmoid(scores.double()).sum(-1)
    return log_r - torch.log(-torch.expm1(log_r))


AGGREGATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "last": last,
    "min": lowest,
    "prod": product,
    "model": last,
}


class RewardModel:
    """A process reward model: `RewardModel.load("minimath-prm")`, or Qwen/Qwen2.5-Math-PRM-7B.

    aggregation  how step scores make a prefix's score: `last`, `min`, `prod`, or `model`, which reads the whole
                 partial solution as one block closed by one separator
    """

    def __init__(
        self,
        body: Any,
        head: nn.Module,
        tokenizer: Any,
        family: Family,
        aggregation: str = "last",
    ) -> None:
        if aggregation not in AGGREGATIONS:
            raise UserError(
                f"there is no aggregation {aggregation!r}; choose one of {', '.join(AGGREGATIONS)}"
            )
        separator = tokenizer(family.separator, add_special_tokens=False)["input_ids"]
        if len(separator) != 1 or separator[0] == tokenizer.unk_token_id:
            raise UserError(
                f"the reward model's tokenizer lacks its separator {family.separator!r} as one token; "
                "use the tokenizer that came with the reward model"
            )
        self.body, self.head, self.tokenizer, self.family, self.aggregation = (
            body,
            head,
            tokenizer,
            family,
            aggregation,
        )
        self.separator: int = separator[0]
        self.device = body.device
        self.context = context_of(body.config)

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        aggregation: str = "last",
    ) -> "RewardModel":
        """From a shipped name (minimath-prm), a model folder or a hub id: a plain body, and its head beside it."""
        from transformers import AutoModel

        where, place = locate(name), best_device(device)
        folder = Path(where["pretrained_model_name_or_path"])
        kinds = (
            []
            if "gguf_file" in where
            else json.loads((folder / "config.json").read_text()).get("architectures")
            or []
        )
        family = next((FAMILIES[kind] for kind in kinds if kind in FAMILIES), None)
        if family is None:
            raise UserError(
                f"{name} is not a process reward model that pfref knows ({', '.join(FAMILIES)})"
            )
        tokenizer = load_tokenizer(where)
        body = load_weights(AutoModel, where, place, best_dtype(dtype, place))
        return cls(
            body, load_head(folder, family).to(place), tokenizer, family, aggregation
        )

    def prompt(self, problem: str) -> list[int]:
        """The chat template up to the assistant's first word."""
        messages = [
            {"role": "system", "content": self.family.system},
            {"role": "user", "content": problem},
        ]
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= self.context:
            raise UserError(
                f"the problem has {len(ids)} tokens and the reward model's context is {self.context}; shorten it"
            )
        return ids

    def step_tokens(self, text: str, first: bool) -> list[int]:
        """One step and the separator that closes it."""
        text = text.strip()
        if self.aggregation == "model" and not first:
            text = "\n\n" + text
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] + [
            self.separator
        ]

    @torch.inference_mode()
    def start(self, problems: Sequence[str], particles: int) -> Judgement:
        """Read P problems once each, and fork each to N particles."""
        cache = RaggedCache(len(problems), self.device)
        prompts = [self.prompt(problem) for problem in problems]
        self.feed(cache, prompts)
        rows = torch.arange(len(problems), device=self.device).repeat_interleave(
            particles
        )
        cache.select(rows)
        cache.particle = torch.arange(len(rows), device=self.device)
        return Judgement(
            cache,
            torch.zeros(len(rows), 0, device=self.device),
            cache.particle.clone(),
            torch.tensor([len(prompt) for prompt in prompts]),
        )

    def fork(self, judgement: Judgement, ancestors: Tensor) -> None:
        """Row r becomes a copy of row ancestors[r], (R,)."""
        judgement.scores, judgement.parents = (
            judgement.scores[ancestors],
            judgement.parents[ancestors],
        )

    @torch.inference_mode()
    def extend(self, judgement: Judgement, moved: Tensor, steps: Sequence[str]) -> None:
        """Score one more step of every row in `moved`, (R,) bool; steps[r] is row r's new text.

        Rows that did not move keep their aggregated score. A row too long for the model's context gets -inf.
        """
        j, first = judgement, judgement.scores.shape[1] == 0
        if first:
            scores = torch.zeros(len(moved), device=self.device)
        else:  # what leaves the aggregate as it is: a certain step in a product, and else the score once more
            scores = (
                torch.full_like(j.scores[:, -1], torch.inf)
                if self.aggregation == "prod"
                else j.scores[:, -1].clone()
            )
        pieces = {
            row: self.step_tokens(steps[row], first)
            for row in moved.nonzero()[:, 0].tolist()
        }
        held = torch.zeros_like(j.parents)
        held[j.cache.particle] = j.cache.lengths
        held = held[j.parents].tolist()
        too_long = [
            row
            for row, piece in pieces.items()
            if held[row] + len(piece) > self.context
        ]
        for row in too_long:
            del pieces[row]
        fed = moved.clone()
        fed[too_long] = False
        scores[too_long] = -torch.inf
        j.cache.fork(j.parents, fed, spare=max(map(len, pieces.values()), default=0))
        j.parents = torch.arange(len(moved), device=self.device)
        rows = j.cache.particle.tolist()
        if rows:
            found = self.feed(j.cache, [pieces[row] for row in rows])
            if not found.isfinite().all():
                raise UserError(
                    "the reward model returned NaN or infinite scores; load it in float32, and check its weights"
                )
            scores[j.cache.particle] = found
            for row in rows:
                j.scored[row * len(j.scored) // len(moved)] += len(pieces[row])
            if self.aggregation == "model":
                j.cache.lengths -= 1  # the separator was a look ahead; the next step is written over it
        j.scores = torch.cat([j.scores, scores[:, None]], 1)

    def feed(self, cache: RaggedCache, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Run the body over each row's next tokens; the log-odds at each row's last one, (B,) float32."""
        counts = [len(piece) for piece in pieces]
        ids = torch.full((len(pieces), max(counts)), self.separator)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece)] = torch.tensor(piece)
        hidden = cache.extend(self.body, ids.to(self.device), counts).last_hidden_state
        at_end = hidden[torch.arange(len(pieces)), torch.tensor(counts) - 1]
        logits = self.head(at_end.float())
        return logits[:, 1] - logits[:, 0]

    def log_odds(self, judgement: Judgement) -> Tensor:
        """Of every row's prefix, (R,), aggregated over its steps."""
        return AGGREGATIONS[self.aggregation](judgement.scores).double()


def new_head(width: int) -> nn.Sequential:
    """Qwen2.5-Math-PRM's head, in float32: two logits, wrong and right."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


def load_head(folder: Path, family: Family) -> nn.Sequential:
    """The head's tensors, which lie beside the body's."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in stored.keys():
                if name.startswith(family.head):
                    tensors[name.removeprefix(family.head)] = stored.get_tensor(
                        name
                    ).float()
    if "0.weight" not in tensors:
        raise UserError(
            f"{folder} has no reward head ({family.head}*) in its safetensors files"
        )
    head = new_head(tensors["0.weight"].shape[1])
    head.load_state_dict(tensors)
    return head.eval().requires_grad_(False)
