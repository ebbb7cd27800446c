"""Train MiniMath's process reward model.

A verdict at the end of each step alone is a thin signal: the model then learns first how hard a problem is. So every part
has its own lesson. The trunk goes on predicting the reference's next token wherever a candidate is right so far; two layers
above it, where what was expected can be compared with what was written, notice the moment of a mistake; the last layer
gathers what was noticed into a verdict, at every token. Used is the verdict at the separators alone.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from ..lm import LanguageModel
from ..prm import new_head
from .export import trained
from .fitting import IGNORED, Batch, Recipe, by_length, fit
from .mistakes import Example, corrupted, sampled, unseen_problem
from .policy import grow, new_model, prompt_text, unseen
from .tokenizer import build

SEPARATOR = "<extra_0>"
TRUNK, NOTICE = 4, 6  # layers after which the next token and the moment of a mistake are known; one more gathers
HELD_BACK = 4096  # samples that no training step sees


class Judge(nn.Module):
    """A reward model in training: a language model with Qwen2.5-Math-PRM's head beside its own."""

    def __init__(self, lm: Qwen2ForCausalLM) -> None:
        super().__init__()
        self.lm, self.head = lm, new_head(lm.config.hidden_size)
        self.moment = nn.Linear(lm.config.hidden_size, 2)  # for training only


def judge_batches(tokenizer: PreTrainedTokenizerFast, samples: list[Example], rows: int, seed: int) -> Callable[[int], Batch]:
    """Half samples, half references with mistakes. A target is 1 + the reference's next token while right, 0 once wrong."""
    held_out = unseen()

    def close(steps: list[str]) -> str:
        return "".join(step + SEPARATOR for step in steps)

    def examples(rng: random.Random, count: int) -> list[tuple[list[int], list[int]]]:
        chosen = rng.sample(samples, count // 2)
        chosen += [corrupted(rng, *unseen_problem(rng, held_out)) for _ in range(count - len(chosen))]
        prompts, candidates, references = (tokenizer(list(texts))["input_ids"] for texts in zip(
            *((prompt_text(problem), close(steps), close(reference)) for problem, steps, reference in chosen), strict=True))
        return [(prompt + candidate, [IGNORED] * len(prompt) + targets(candidate, reference + [tokenizer.eos_token_id]))
                for prompt, candidate, reference in zip(prompts, candidates, references, strict=True)]

    return by_length(examples, rows, tokenizer.pad_token_id, seed)


def targets(candidate: list[int], reference: list[int]) -> list[int]:
    right = next((k for k, pair in enumerate(zip(candidate, reference)) if pair[0] != pair[1]), min(len(candidate), len(reference) - 1))
    return [1 + token for token in reference[1:right + 1]] + [0] * (len(candidate) - right)


def judge_losses(judge: Judge, batch: Batch) -> tuple[Tensor, ...]:
    """Of the verdicts at the separators, and at every token; of the moment of the mistake, right tokens and first wrong ones weighing the same;
    and of the reference's next tokens."""
    ids, wanted = batch
    with torch.autocast("cpu", torch.bfloat16):
        layers = judge.lm.model(input_ids=ids, output_hidden_states=True).hidden_states
    right, first_wrong = wanted > 0, (wanted == 0) & (wanted.roll(1, 1) != 0)
    tokens = nn.functional.cross_entropy(judge.lm.lm_head(judge.lm.model.norm(layers[TRUNK][right].float())), wanted[right] - 1)
    moment = sum(nn.functional.cross_entropy(judge.moment(judge.lm.model.norm(layers[NOTICE][some].float())), torch.full((int(some.sum()),), label))
                 for some, label in ((right, 1), (first_wrong, 0))) / 2
    kept = wanted != IGNORED
    verdict = nn.functional.cross_entropy(judge.head(layers[-1][kept].float()), right[kept].long(), reduction="none")
    return verdict[ids[kept] == judge.separator].mean(), verdict.mean(), moment, tokens


def judge_report(tokenizer: PreTrainedTokenizerFast, samples: list[Example]) -> Callable[[nn.Module], str]:
    """The loss of a step's verdict on held-back samples and mistakes: guessing costs about 0.69."""
    batches = judge_batches(tokenizer, samples, 256, seed=-1)

    @torch.no_grad()
    def report(judge: nn.Module) -> str:
        return "held-back loss {:.3f}, every token {:.3f}, moment of the mistake {:.3f}, next token {:.3f}".format(
            *(loss.item() for loss in judge_losses(judge, batches(0))))

    return report


def train_judge(folder: Path, recipe: Recipe, rows: int) -> Judge:
    """From the fully trained policy; the small model's samples are drawn once and kept in `folder`."""
    tokenizer = build()
    torch.manual_seed(recipe.seed)
    lm = new_model("judge", tokenizer)
    grow(lm, trained(new_model("full", tokenizer), folder / "full"), places=(0, 1, 2, 3))
    judge = Judge(lm)
    judge.separator = tokenizer.convert_tokens_to_ids(SEPARATOR)
    samples_file = folder / "samples.json"
    if not samples_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        samples_file.write_text(json.dumps(sampled(LanguageModel.load("minimath-small"), 40_000, recipe.seed, unseen())))
    samples = json.loads(samples_file.read_text())
    fit(judge, judge_batches(tokenizer, samples[HELD_BACK:], rows, recipe.seed), lambda m, batch: sum(judge_losses(m, batch)),
        folder / "prm", recipe, judge_report(tokenizer, samples[:HELD_BACK]), "prm")
    return judge
