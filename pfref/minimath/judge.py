"""Train MiniMath's process reward model.

A verdict at the end of each step alone is a thin signal: the model then learns first
how hard a problem is, which tells nothing about the candidates of one problem. So each
part has its own lesson. The trunk is the large language model, frozen: it knows what
should come next, and better than the policy that is judged. New layers on top compare
that with what was written: the first attends to the token before from the start, two of
them learn how surprised the trunk was by every token and notice the moment of a
mistake, and two more gather this into a verdict, at every token. Used is the verdict at
the separators alone.
"""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from ..lm import LanguageModel
from ..prm import new_head
from .export import trained
from .fitting import IGNORED, Batch, Recipe, by_length, fit, mixed_precision
from .mistakes import Example, corrupted, sampled, unseen_problem
from .policy import grow, new_model, prompt_text, unseen
from .problems import DELIMITER
from .tokenizer import build

SEPARATOR = "<extra_0>"
TRUNK, NOTICE = (
    8,
    10,
)  # layers of the large model, and layers after which a mistake is noticed
HELD_BACK = 4096  # samples that no training step sees


class Judge(nn.Module):
    """A reward model in training: a body with Qwen2.5-Math-PRM's head, and three heads
    for training only.
    """

    def __init__(
        self, lm: Qwen2ForCausalLM, separator: int, expect: list[nn.Module]
    ) -> None:
        super().__init__()
        width = lm.config.hidden_size
        self.lm, self.head = lm, new_head(width)
        self.notice_norm, self.moment, self.surprise = (
            copy.deepcopy(lm.model.norm),
            nn.Linear(width, 2),
            nn.Linear(width, 1),
        )
        self.separator = separator
        # The large model's last layers, in a list: they are not the judge's own.
        self.expect = expect


def new_judge(tokenizer: PreTrainedTokenizerFast, large: Qwen2ForCausalLM) -> Judge:
    """The large model's layers, frozen, and new ones above; the separator is read as
    the delimiter that it stands for.
    """
    lm = new_model("judge", tokenizer)
    grow(lm, large, places=range(TRUNK))
    shrink_stream(lm, TRUNK, 1 / 200)
    separator, delimiter = tokenizer.convert_tokens_to_ids([SEPARATOR, DELIMITER])
    with torch.no_grad():
        lm.model.embed_tokens.weight[separator] = lm.model.embed_tokens.weight[
            delimiter
        ]
    attend_to_the_token_before(lm.model.layers[TRUNK].self_attn)
    judge = Judge(lm, separator, [large.model.norm.eval(), large.lm_head.eval()])
    for frozen in (lm.model.embed_tokens, *lm.model.layers[:TRUNK]):
        frozen.requires_grad_(False)
    return judge


@torch.no_grad()
def shrink_stream(lm: Qwen2ForCausalLM, layers: int, factor: float) -> None:
    """Scale what flows between the first layers, which leaves their function as it is:
    every layer normalises its input.

    Training lets the stream grow to 200 times what a new layer can add, so without this
    the new ones are hardly heard.
    """
    lm.model.embed_tokens.weight.mul_(factor)
    for layer in lm.model.layers[:layers]:
        layer.self_attn.o_proj.weight.mul_(factor)
        layer.mlp.down_proj.weight.mul_(factor)
    lm.config.rms_norm_eps *= factor**2
    for module in lm.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = lm.config.rms_norm_eps


@torch.no_grad()
def attend_to_the_token_before(
    attention: Any,
    strength: float = 6.4,
    frequencies: int = 8,
    base: float = 10000.0,
) -> None:
    """Biases of queries and keys whose rotary product, A^2 sum_f cos(theta_f (i - j -
    1)), is largest at j = i - 1.
    """
    half = attention.head_dim // 2
    theta = base ** (-torch.arange(frequencies) / half)
    for projection, angle in (
        (attention.q_proj, -theta),
        (attention.k_proj, torch.zeros_like(theta)),
    ):
        bias = projection.bias.view(-1, 2, half)
        bias[:, 0, :frequencies], bias[:, 1, :frequencies] = (
            strength * angle.cos(),
            strength * angle.sin(),
        )


def judge_batches(
    tokenizer: PreTrainedTokenizerFast, samples: list[Example], rows: int, seed: int
) -> Callable[[int], Batch]:
    """Half samples, half references with mistakes.

    A target is 1 + the reference's next token while right, 0 once wrong.
    """
    held_out = unseen()

    def close(steps: list[str]) -> str:
        return "".join(step + SEPARATOR for step in steps)

    def examples(rng: random.Random, count: int) -> list[tuple[list[int], list[int]]]:
        chosen = rng.sample(samples, count // 2)
        chosen += [
            corrupted(rng, *unseen_problem(rng, held_out))
            for _ in range(count - len(chosen))
        ]
        prompts, candidates, references = (
            tokenizer(list(texts))["input_ids"]
            for texts in zip(
                *(
                    (prompt_text(problem), close(steps), close(reference))
                    for problem, steps, reference in chosen
                ),
                strict=True,
            )
        )
        return [
            (
                prompt + candidate,
                [IGNORED] * len(prompt)
                + targets(candidate, reference + [tokenizer.eos_token_id]),
            )
            for prompt, candidate, reference in zip(
                prompts, candidates, references, strict=True
            )
        ]

    return by_length(examples, rows, tokenizer.pad_token_id, seed)


def targets(candidate: list[int], reference: list[int]) -> list[int]:
    right = next(
        (
            k
            for k, pair in enumerate(zip(candidate, reference, strict=False))
            if pair[0] != pair[1]
        ),
        min(len(candidate), len(reference) - 1),
    )
    return [1 + token for token in reference[1 : right + 1]] + [0] * (
        len(candidate) - right
    )


def judge_losses(judge: Judge, batch: Batch) -> tuple[Tensor, ...]:
    """Of the verdicts at the separators, and at every token; of the moment of the
    mistake, right tokens and first wrong ones weighing the same; and of the trunk's
    surprise, log p(token), at every token of the candidate.
    """
    ids, wanted = batch
    with mixed_precision():
        layers = judge.lm.model(input_ids=ids, output_hidden_states=True).hidden_states
    kept, right = wanted != IGNORED, wanted > 0
    with torch.no_grad():
        norm, head = judge.expect
        expected = torch.log_softmax(head(norm(layers[TRUNK][:, :-1].float())), -1)
        expected = expected.gather(-1, ids[:, 1:, None])[..., 0].clamp(min=-8)[
            kept[:, 1:]
        ]
    noticed = judge.notice_norm(layers[NOTICE].float())
    surprise = nn.functional.smooth_l1_loss(
        judge.surprise(noticed[kept])[:, 0], expected
    )
    first_wrong = (wanted == 0) & (wanted.roll(1, 1) != 0)
    moments = [
        nn.functional.cross_entropy(
            judge.moment(noticed[some]), torch.full((int(some.sum()),), label)
        )
        for some, label in ((right, 1), (first_wrong, 0))
    ]
    moment = (moments[0] + moments[1]) / 2
    verdict = nn.functional.cross_entropy(
        judge.head(layers[-1][kept].float()), right[kept].long(), reduction="none"
    )
    return (
        verdict[ids[kept] == judge.separator].mean(),
        verdict.mean(),
        moment,
        surprise,
    )


def held_back_report(
    tokenizer: PreTrainedTokenizerFast, samples: list[Example]
) -> Callable[[Judge], str]:
    """The loss of a step's verdict on held-back samples and mistakes: guessing costs
    about 0.69.
    """
    batches = judge_batches(tokenizer, samples, 256, seed=-1)

    @torch.no_grad()
    def report(judge: Judge) -> str:
        return (
            "held-back loss {:.3f}, every token {:.3f}, moment of the mistake "
            "{:.3f}, surprise {:.3f}"
        ).format(*(loss.item() for loss in judge_losses(judge, batches(0))))

    return report


def train_judge(folder: Path, recipe: Recipe, rows: int) -> Judge:
    """From the large language model; the small model's samples are drawn once and kept
    in `folder`.
    """
    tokenizer = build()
    torch.manual_seed(recipe.seed)
    judge = new_judge(
        tokenizer, trained(new_model("large", tokenizer), folder / "large")
    )
    samples_file = folder / "samples.json"
    if not samples_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        samples_file.write_text(
            json.dumps(
                sampled(
                    LanguageModel.load("minimath-small"), 40_000, recipe.seed, unseen()
                )
            )
        )
    samples = json.loads(samples_file.read_text())
    fit(
        judge,
        judge_batches(tokenizer, samples[HELD_BACK:], rows, recipe.seed),
        lambda m, batch: sum(judge_losses(m, batch), torch.zeros(())),
        folder / "prm",
        recipe,
        held_back_report(tokenizer, samples[:HELD_BACK]),
        "prm",
    )
    return judge
