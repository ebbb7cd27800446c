"""Train MiniMath's language models on random problems: on reference solutions, and the
small one in the end on pupils'.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from .export import trained
from .fitting import IGNORED, Batch, Recipe, by_length, fit, mixed_precision, pad
from .problems import (
    DELIMITER,
    LEVELS,
    draw,
    load_set,
)
from .programs import Program, evaluate, write_steps
from .pupils import pupils_results
from .subjects import SUBJECTS
from .tokenizer import build

LAYERS = {
    "full": 4,
    "practised": 4,  # full, after more of what is learnt last
    "small": 4,  # practised, gone to school
    "large": 8,  # practised, and a new layer after each of its own
    "judge": 12,
}  # large, and four layers on top
GROWN = {
    "practised": ("full", range(4)),
    "small": ("practised", range(4)),
    "large": ("practised", (0, 2, 4, 6)),
}  # from what, and where its layers go
PRACTICE = {
    "Number Theory": 4,
    "Algebra": 3,
}  # remainders, and division: rare steps, and learnt last, so drawn more often


def new_model(size: str, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=LAYERS[size],
            num_attention_heads=4,
            num_key_value_heads=4,
            tie_word_embeddings=True,
            max_position_embeddings=512,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def grow(
    model: Qwen2ForCausalLM, trunk: Qwen2ForCausalLM, places: Sequence[int]
) -> None:
    """Start a deeper model as the same function: the trunk's layers in `places`, the
    other layers adding nothing yet.
    """
    layers = model.model.layers
    for layer in layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    for place, trained_layer in zip(places, trunk.model.layers, strict=True):
        layers[place].load_state_dict(trained_layer.state_dict())
    model.model.embed_tokens.load_state_dict(trunk.model.embed_tokens.state_dict())
    model.model.norm.load_state_dict(trunk.model.norm.state_dict())


def prompt_text(problem: str) -> str:
    return f"<|user|>{problem}<|assistant|>"  # what the chat template writes


def unseen() -> set[str]:
    """The fixed sets' problems, which no training sees."""
    return {p.problem for name in ("minimath500", "miniaime") for p in load_set(name)}


def reference_results(rng: random.Random, program: Program, level: int) -> list[int]:
    return evaluate(program)


def language_batches(
    tokenizer: PreTrainedTokenizerFast,
    rows: int,
    seed: int,
    practice: dict[str, int],
    results_of: Callable[[random.Random, Program, int], list[int]] = reference_results,
) -> Callable[[int], Batch]:
    """Problems with their solutions, the results from `results_of`; only solution
    tokens carry loss.

    A subject is drawn as often as `practice` says, else once.
    """
    held_out, subjects = (
        unseen(),
        [s for s in SUBJECTS for _ in range(practice.get(s, 1))],
    )

    def examples(rng: random.Random, count: int) -> list[tuple[list[int], list[int]]]:
        prompts: list[str] = []
        solutions: list[str] = []
        while len(prompts) < count:
            _, text, program = draw(
                rng, level := rng.choice(LEVELS), rng.choice(subjects)
            )
            if text not in held_out:
                prompts.append(prompt_text(text))
                solutions.append(
                    DELIMITER.join(
                        write_steps(program, results_of(rng, program, level))
                    )
                    + tokenizer.eos_token
                )
        pairs = zip(
            tokenizer(prompts)["input_ids"],
            tokenizer(solutions)["input_ids"],
            strict=True,
        )
        return [(p + s, [IGNORED] * (len(p) - 1) + s + [IGNORED]) for p, s in pairs]

    return by_length(examples, rows, tokenizer.pad_token_id, seed)


def language_loss(model: Qwen2ForCausalLM, batch: Batch) -> Tensor:
    ids, targets = batch
    with mixed_precision():
        hidden = model.model(input_ids=ids).last_hidden_state
    kept = targets != IGNORED
    return nn.functional.cross_entropy(
        model.lm_head(hidden[kept].float()), targets[kept]
    )


def step_accuracy(
    tokenizer: PreTrainedTokenizerFast, rows: int = 300
) -> Callable[[nn.Module], str]:
    """Per level: the share of reference steps that the model would write itself, token
    by token, at temperature 0.
    """
    chosen = load_set("minimath500")[:rows]
    prompts = tokenizer([prompt_text(p.problem) for p in chosen])["input_ids"]
    solutions = tokenizer([p.solution + tokenizer.eos_token for p in chosen])[
        "input_ids"
    ]
    ids = pad(
        [p + s for p, s in zip(prompts, solutions, strict=True)], tokenizer.pad_token_id
    )
    separator = tokenizer.convert_tokens_to_ids(DELIMITER)

    @torch.no_grad()
    def report(model: nn.Module) -> str:
        guesses = model(input_ids=ids).logits.argmax(-1)
        right, total = dict.fromkeys(LEVELS, 0), dict.fromkeys(LEVELS, 0)
        for row, problem in enumerate(chosen):
            good, first = True, len(prompts[row])
            for position in range(first, first + len(solutions[row])):
                good = good and bool(guesses[row, position - 1] == ids[row, position])
                if ids[row, position] in (separator, tokenizer.eos_token_id):
                    right[problem.level] += good
                    total[problem.level] += 1
                    good = True
        return "step accuracy " + " ".join(f"{right[k] / total[k]:.2f}" for k in LEVELS)

    return report


def train_language_model(
    size: str, folder: Path, recipe: Recipe, rows: int
) -> Qwen2ForCausalLM:
    tokenizer = build()
    torch.manual_seed(recipe.seed)
    model = new_model(size, tokenizer)
    if size in GROWN:
        before, places = GROWN[size]
        grow(model, trained(new_model(before, tokenizer), folder / before), places)
    batches = language_batches(
        tokenizer,
        rows,
        recipe.seed,
        {} if size == "full" else PRACTICE,
        pupils_results if size == "small" else reference_results,
    )
    fit(
        model,
        batches,
        language_loss,
        folder / size,
        recipe,
        step_accuracy(tokenizer),
        size,
    )
    return model
