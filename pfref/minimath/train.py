"""Train MiniMath's models: two language models and a process reward model.

    python -m pfref.minimath.train small      # the policy
    python -m pfref.minimath.train full       # the policy trained to the end: where the two others start
    python -m pfref.minimath.train large      # the language model to beat: deeper
    python -m pfref.minimath.train prm        # learns on mistakes and on the small one's samples

Each but `full` ends by writing its model in half precision into the package, under pfref/minimath/.

Every run saves once a minute under --folder and goes on from there when it is started again.
Batches are drawn from --seed and their number, so a run that was cut off sees the same data.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from ..loading import SHIPPED
from .export import export_language_model, export_reward_model, trained
from .problems import DELIMITER, LEVELS, draw, evaluate, load_set, write_steps
from .tokenizer import build

SIZES = {"small": dict(hidden_size=128, num_hidden_layers=4, intermediate_size=384),
         "full": dict(hidden_size=128, num_hidden_layers=4, intermediate_size=384),  # small, trained to the end
         "large": dict(hidden_size=128, num_hidden_layers=8, intermediate_size=384),  # full, and four layers between
         "judge": dict(hidden_size=128, num_hidden_layers=7, intermediate_size=384)}  # full, and three layers on top


@dataclass(frozen=True)
class Recipe:
    """How a shipped model was trained: batches of 32 rows, one thread."""
    steps: int  # over which the schedule runs
    stop: int  # the small model stops early, so that it stays imperfect
    rate: float
    seed: int
    decay: float = 0.57  # the last share of the steps, over which the rate falls to zero


RECIPES = {"small": Recipe(2600, 1930, 1e-2, 1), "full": Recipe(5000, 5000, 1e-2, 1, 1 / 3),
           "large": Recipe(1800, 1800, 6e-3, 2), "prm": Recipe(3000, 3000, 5e-3, 3)}
IGNORED = -100  # a target that carries no loss

Batch = tuple[Tensor, Tensor]  # token ids and targets, both (rows, length)


def new_model(size: str, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    heads = SIZES[size]["hidden_size"] // 32
    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=len(tokenizer), num_attention_heads=heads, num_key_value_heads=heads, tie_word_embeddings=True,
        max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None, **SIZES[size]))


def grow(model: Qwen2ForCausalLM, trunk: Qwen2ForCausalLM, places: Sequence[int]) -> None:
    """Start a deeper model as the same function: the trunk's layers in `places`, the other layers adding nothing yet."""
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


def pad(rows: list[list[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def language_batches(tokenizer: PreTrainedTokenizerFast, rows: int, seed: int) -> Callable[[int], Batch]:
    """Problems with their reference solutions; only solution tokens carry loss."""
    held_out = unseen()

    def examples(rng: random.Random, count: int) -> list[tuple[list[int], list[int]]]:
        prompts, solutions = [], []
        while len(prompts) < count:
            _, text, program = draw(rng, rng.choice(LEVELS))
            if text not in held_out:
                prompts.append(prompt_text(text))
                solutions.append(DELIMITER.join(write_steps(program, evaluate(program))) + tokenizer.eos_token)
        pairs = zip(tokenizer(prompts)["input_ids"], tokenizer(solutions)["input_ids"], strict=True)
        return [(p + s, [IGNORED] * (len(p) - 1) + s + [IGNORED]) for p, s in pairs]

    return by_length(examples, rows, tokenizer.pad_token_id, seed)


def by_length(examples: Callable[[random.Random, int], list[tuple[list[int], list[int]]]], rows: int, padding: int,
              seed: int, pool_batches: int = 16) -> Callable[[int], Batch]:
    """Batches of rows of like length, cut from a pool that is sorted by length, in random order."""
    pools: dict[int, list[Batch]] = {}

    def batch_at(step: int) -> Batch:
        number, place = divmod(step, pool_batches)
        if number not in pools:
            pools.clear()
            rng = random.Random(f"{seed}/{number}")
            pool = sorted(examples(rng, rows * pool_batches), key=lambda pair: len(pair[0]))
            groups = [pool[k:k + rows] for k in range(0, len(pool), rows)]
            pools[number] = [(pad([ids for ids, _ in g], padding), pad([t for _, t in g], IGNORED))
                             for g in rng.sample(groups, len(groups))]
        return pools[number][place]

    return batch_at


def language_loss(model: Qwen2ForCausalLM, batch: Batch) -> Tensor:
    ids, targets = batch
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids).last_hidden_state
    kept = targets != IGNORED
    return nn.functional.cross_entropy(model.lm_head(hidden[kept].float()), targets[kept])


def optimizers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    others = [p for name, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in name)]
    return [torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.98))]


def rate_at(step: int, recipe: Recipe) -> float:
    """Warm up over 100 steps, hold, and fall to zero."""
    return recipe.rate * min(1.0, (step + 1) / 100, (recipe.steps - step) / (recipe.decay * recipe.steps))


def fit(model: nn.Module, batch_at: Callable[[int], object], loss_of: Callable[[nn.Module, object], Tensor],
        folder: Path, recipe: Recipe, report: Callable[[nn.Module], str], label: str) -> None:
    """Train to `recipe.stop`, saving once a minute under `folder` and continuing from what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    solvers = optimizers(model, recipe.rate)
    state_file, record_file = folder / "training.safetensors", folder / "training.json"
    first, seconds, lines = 0, 0.0, []
    if record_file.exists():
        record = json.loads(record_file.read_text())
        first, seconds, lines = record["step"], record["seconds"], record["lines"]
        restore(model, solvers, load_file(state_file))
    started = saved = time.time()
    for step in range(first, recipe.stop):
        for solver in solvers:
            for group in solver.param_groups:
                group["lr"] = rate_at(step, recipe)
        loss = loss_of(model, batch_at(step))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for solver in solvers:
            solver.step()
            solver.zero_grad()
        if time.time() - saved > 60 or step + 1 == recipe.stop:
            saved = time.time()
            line = f"{label} step {step + 1}/{recipe.stop} {seconds + saved - started:.0f} s loss {loss.item():.3f} {report(model)}"
            print(line, flush=True)
            lines.append(line)
            save_file(snapshot(model, solvers), state_file)
            record_file.write_text(json.dumps(dict(step=step + 1, seconds=seconds + saved - started, lines=lines)))


def snapshot(model: nn.Module, solvers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The weights and the optimizers' state as one flat dictionary of tensors."""
    tensors = {f"model/{name}": p.detach().clone() for name, p in model.named_parameters()}
    for k, solver in enumerate(solvers):
        for index, values in solver.state_dict()["state"].items():
            tensors |= {f"{k}/{index}/{key}": torch.as_tensor(value).clone() for key, value in values.items()}
    return tensors


def restore(model: nn.Module, solvers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model/{name}"])
    for k, solver in enumerate(solvers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            where, _, rest = name.partition("/")
            if where == str(k):
                index, _, key = rest.partition("/")
                state.setdefault(int(index), {})[key] = tensor
        solver.load_state_dict(solver.state_dict() | {"state": state})


def step_accuracy(tokenizer: PreTrainedTokenizerFast, rows: int = 300) -> Callable[[nn.Module], str]:
    """Per level: the share of reference steps that the model would write itself, token by token, at temperature 0."""
    chosen = load_set("minimath500")[:rows]
    prompts = tokenizer([prompt_text(p.problem) for p in chosen])["input_ids"]
    solutions = tokenizer([p.solution + tokenizer.eos_token for p in chosen])["input_ids"]
    ids = pad([p + s for p, s in zip(prompts, solutions, strict=True)], tokenizer.pad_token_id)
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


def train_language_model(size: str, folder: Path, recipe: Recipe, rows: int) -> Qwen2ForCausalLM:
    tokenizer = build()
    torch.manual_seed(recipe.seed)
    model = new_model(size, tokenizer)
    if size == "large":
        grow(model, trained(new_model("full", tokenizer), folder / "full"), places=(0, 2, 4, 6))
    fit(model, language_batches(tokenizer, rows, recipe.seed), language_loss, folder / size, recipe,
        step_accuracy(tokenizer), size)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(RECIPES))
    parser.add_argument("--folder", type=Path, default=Path("training"))
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where to write the finished model")
    parser.add_argument("--rows", type=int, default=32)
    for name, kind in (("steps", int), ("stop", int), ("rate", float), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, help="default: as the shipped model was trained")
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    recipe = replace(RECIPES[a.what], **{n: v for n in ("steps", "stop", "rate", "seed") if (v := getattr(a, n)) is not None})
    if a.what == "prm":
        from .judge import train_judge

        judge = train_judge(a.folder, recipe, a.rows)
        export_reward_model(judge.lm.model, judge.head, build(), a.out / a.what)
        return
    model = train_language_model(a.what, a.folder, recipe, a.rows)
    if a.what != "full":
        export_language_model(model, build(), a.out / a.what)


if __name__ == "__main__":
    main()
