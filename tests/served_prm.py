"""A server that gives a reward model's numbers as vLLM 0.32 does, whose answers it was
compared with (tests/test_real_prm.py): /pooling for a head of its own, and
/v1/completions for a language model's head.

    with ServedPrm(outputs) as server: RewardModel.connect(server.url, folder, ...)

`outputs` makes of ids (1, L) what the head gives for every token, (1, L, 1 or 2); with
`words`, the logits (1, L, V).
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pfref.prm import RewardModel
from tests import served
from tests.hub_layouts import WORDS
from tests.served import Served

served.PATHS["/pooling"] = "pooling"


class ServedPrm(Served):
    """`spoil` changes an answer before it is sent."""

    def __init__(
        self, outputs: Callable[[Tensor], Tensor], words: bool = False, slow: float = 0
    ) -> None:
        super().__init__("vllm", None, slow)
        self.http.RequestHandlerClass = type("Own", (Handler,), {"served": self})
        self.outputs, self.words, self.context = outputs, words, 4096
        self.tag: int | None = None  # the rows of this token alone, as with Qwen's
        self.knows = True  # the fields use_activation and logprob_token_ids
        self.spoil: Callable[[dict[str, Any]], Any] = lambda answer: answer

    @torch.inference_mode()
    def answer(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        pooled = kind == "pooling"
        if pooled == self.words:
            return dict(error=dict(message="Not Found", code=404))
        if body["model"] != "tiny":
            return dict(error=dict(message="no such model", code=404))
        ids = body["input" if pooled else "prompt"]
        if len(ids) + (not pooled) > self.context:
            return dict(error=dict(message="too long", code=400))
        found = self.outputs(torch.tensor([ids]))[0].float()
        answer = self.pooled(found, body) if pooled else self.completed(found[-1], body)
        return self.spoil(answer)

    def pooled(self, found: Tensor, body: dict[str, Any]) -> dict[str, Any]:
        assert body["task"] == "token_classify"  # the server's own choice is classify
        if body.get("use_activation", True) or not self.knows:
            one = found.shape[1] == 1
            found = found.sigmoid() if one else found.softmax(-1)
        if self.tag is not None:
            found = found[torch.tensor(body["input"]) == self.tag]
        data = dict(index=0, object="pooling", data=found.tolist())
        return dict(object="list", model="tiny", data=[data])

    def completed(self, logits: Tensor, body: dict[str, Any]) -> dict[str, Any]:
        log_p = logits.log_softmax(-1)
        kept = [int(log_p.argmax())]
        if self.knows:
            kept += body.get("logprob_token_ids") or []
        names = body.get("return_tokens_as_token_ids")
        top = {f"token_id:{k}" if names else str(k): float(log_p[k]) for k in kept}
        choice = dict(index=0, text="", logprobs=dict(top_logprobs=[top]))
        return dict(object="text_completion", choices=[choice])


class Handler(served.Handler):
    def say(self, what: Any, status: int = 200, cut: bool = False) -> None:
        error = what.get("error") if isinstance(what, dict) else None
        super().say(what, error.get("code", status) if error else status, cut)


def heads(prm: RewardModel) -> Callable[[Tensor], Tensor]:
    """What a server of it computes, by one plain pass."""

    def outputs(ids: Tensor) -> Tensor:
        return prm.head.net(prm.body(input_ids=ids).last_hidden_state.float())

    return outputs


def step(rng: random.Random) -> str:
    words = " ".join(rng.choices(WORDS, k=rng.choice((1, 2, 5, 12))))
    return words + rng.choice(("", ".", "\nand\n" + rng.choice(WORDS))) + "\n\n"


def compare(
    here: RewardModel,
    there: RewardModel,
    problems: Sequence[str],
    aggregation: str = "last",
    steps: int = 5,
    within: float = 1e-4,
) -> tuple[int, int]:
    """Three rows of each problem, uneven steps, random ancestors after every step; a
    fifth of the rows rest at any step, and some take two at once. Scores and counts
    are the same. Returns the
    tokens that were sent, and those that were counted.
    """
    rng, rows, models = random.Random(1), 3 * len(problems), (here, there)
    judged = [prm.start(problems, 3) for prm in models]
    texts: list[tuple[str, ...]] = [()] * rows
    for t in range(steps):
        moved = torch.tensor([t == 0 or rng.random() < 0.8 for _ in range(rows)])
        texts = [
            (*text, *(step(rng) for _ in range(rng.choice((1, 1, 2)))))
            if moves
            else text
            for text, moves in zip(texts, moved.tolist(), strict=True)
        ]
        chosen = [row // 3 * 3 + rng.randrange(3) for row in range(rows)]
        z = []
        for prm, judgement in zip(models, judged, strict=True):
            prm.extend(judgement, moved, texts, aggregation)
            prm.fork(judgement, torch.tensor(chosen))
            z.append(prm.log_odds(judgement, aggregation))
        texts = [texts[row] for row in chosen]
        a, b = (judgement.scores.flatten().tolist() for judgement in judged)
        assert b == pytest.approx(a, abs=within)
        assert torch.allclose(z[0], z[1], atol=within)
    scores = judged[0].scores
    assert scores[scores.isfinite()].std() > 0.05 and z[0].isfinite().all()
    counts = [judgement.scored.tolist() for judgement in judged]
    assert counts[0] == counts[1]
    assert not judged[1].cache.own[0]  # nothing is held
    return judged[1].cache.tokens, sum(counts[1])
