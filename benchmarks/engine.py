"""How fast the engine is: ratios against a stated rival and a stated floor, in one run.

    python -m benchmarks.engine [--out FILE]         MiniMath's models
    python -m benchmarks.engine --model DIR --prm self --problems FILE \\
        --dtype bfloat16 -n 16 64 --max-tokens 256   a real model

    (a) proposal alone / `model.generate` on the same number of tokens, all its rows
        equally long, on the model as transformers loads it: with steps of a fixed
        length, and with steps as they come. Where pfref packs the weights, also to
        `generate` on those, and to the proposal on weights that are not packed
    (b) filter / floor: `generate`, and one pass of the reward model over the finished
        texts, those of like length together
    (c) the two loops of the paper's released code / filter (--loops): without a cache
        across steps, its reward model reading one sequence at a time; one proposes for
        all particles together, finished ones too, the other one by one

Also the share of slots at work, that is tokens fed over slots fed; weights and live
keys and values read per second over what a copy of memory reaches here; and, for small
models (--memory), the most bytes that tensors held beyond the weights over the most
that key-values of live tokens took. `solve` takes problems 128 particles at a time, and
so do the rivals. A figure is the best of --repeats, in (c) of one.
"""

import argparse
import itertools
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from benchmarks.rivals import generate, one_reward_pass, papers_loop, unpacked
from pfref import LanguageModel, Proposal, RewardModel, solve
from pfref.cache import RaggedCache
from pfref.inputs import read_problems
from pfref.loading import locate
from pfref.minimath.problems import load_set
from pfref.packing import Packed
from pfref.randomness import generator
from pfref.reasoning import Thoughts
from pfref.records import write_record
from pfref.settings import Settings
from pfref.smc import Step
from pfref.solver import in_batches

FIXED = 48  # tokens of the steps of fixed length


def proposal_alone(
    lm: LanguageModel,
    problems: list[str],
    particles: int,
    proposal: Proposal | None = None,
) -> dict[str, float]:
    """Every particle to its end, step by step: tokens, slots, passes, bytes read."""
    proposal = proposal or Proposal()
    found: dict[str, float] = dict(tokens=0, slots=0, bytes=0)
    weights = sum(p.nbytes for p in lm.model.parameters())
    for part in in_batches(len(problems), Settings(particles=particles)):
        sources = [generator(0, text) for text in problems[part]]
        prompts = [lm.prompt(text) for text in problems[part]]
        paths = lm.start(prompts, particles, proposal)
        while (active := ~(paths.ended | paths.truncated)).any():
            lm.extend(paths, active, sources)
        work, cache = paths.work, paths.work.cache
        generated = int(paths.generated.sum())
        found["tokens"] += generated
        found["slots"] += work.fed_slots
        # Every pass reads the weights and the prompts, and a row's own keys so far.
        held = sum(buffer[0, 0].nbytes for kind in cache.own for buffer in kind)
        prompt = held * sum(map(len, prompts))
        lengths = [len(tokens) for tokens in paths.tokens]
        own = held * sum(n * (n + 1) // 2 for n in lengths)
        found["bytes"] += (cache.calls - 1) * (weights + prompt) + own
    return found


class LiveBytes(TorchDispatchMode):
    """Adds up the bytes of all storages that operations create, and takes them off when
    they die.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: dict[int, int] = {}

    def forget(self, key: int) -> None:
        self.live -= self.known.pop(key, 0)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known[storage._cdata] = storage.nbytes()
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self.forget, storage._cdata)
        self.peak = max(self.peak, self.live)
        return out


def live_bytes(cache: RaggedCache) -> int:
    """Keys and values of the tokens that prompts and rows hold."""
    counts = int(cache.prompt_lengths.sum()), sum(cache.held)
    pairs = cache.prompts, cache.own
    return sum(
        count * buffer[0, 0].nbytes
        for count, pair in zip(counts, pairs, strict=True)
        for buffer in (*pair[0], *pair[1])
    )


def memory(
    lm: LanguageModel, prm: RewardModel, problems: list[str], particles: int
) -> float:
    """Most bytes held by tensors in a run / most key-value bytes of live tokens."""
    live = [1]

    def count(step: Step[Thoughts]) -> None:
        caches = step.state.paths.work.cache, step.state.judgement.cache
        live.append(sum(live_bytes(cache) for cache in caches))

    with LiveBytes() as held:
        solve(problems, lm, prm, particles, watch=count)
    return held.peak / max(live)


def copy_speed() -> float:
    """Bytes per second that are read and written when memory is copied."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = torch.ones(1 << 28 if device == "cuda" else 1 << 26, device=device)
    target = torch.empty_like(source)
    seconds, _ = best(lambda: target.copy_(source), 5)
    return 2 * source.nbytes / seconds


def best(action: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Seconds of the fastest repeat, and what it returned."""
    found = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        out = action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append((time.perf_counter() - began, out))
    return min(found, key=lambda pair: pair[0])


def packed(model: torch.nn.Module) -> bool:
    return any(isinstance(part, Packed) for part in model.modules())


def measure(
    lm: LanguageModel,
    stock: Any,
    prm: RewardModel,
    problems: list[str],
    n: int,
    a: argparse.Namespace,
) -> dict[str, Any]:
    limits = dict(max_tokens=a.max_tokens, max_step_tokens=a.max_tokens)
    real, row = Proposal(**limits), dict[str, Any](problems=len(problems), particles=n)
    fixed = Proposal(step_tokens=FIXED, **limits)
    copied, prompts = copy_speed(), [lm.prompt(text) for text in problems]
    for name, proposal in (("fixed", fixed), ("real", real)):
        alone = partial(proposal_alone, lm, problems, n, proposal)
        ours, found = best(alone, a.repeats)
        tokens = int(found["tokens"])
        rival, _ = best(partial(generate, stock, prompts, n, tokens), a.repeats)
        row[f"{name}_tokens"], row[f"{name}_s"] = tokens, ours
        row[f"{name}_to_generate"] = ours / rival
        if packed(lm.model):
            rival, _ = best(partial(generate, lm.model, prompts, n, tokens), a.repeats)
            row[f"{name}_to_packed"] = ours / rival
            with unpacked(lm):
                row[f"{name}_to_plain"] = ours / best(alone, a.repeats)[0]
        row[f"{name}_at_work"] = tokens / found["slots"]
        row[f"{name}_tokens_per_s"] = tokens / ours
        row[f"{name}_read_to_copy"] = found["bytes"] / ours / copied
    options = dict(proposal=real, threshold=0.5)
    whole, found = best(lambda: solve(problems, lm, prm, n, **options), a.repeats)
    generated = sum(one.cost.generated_tokens for one in found)
    fed = generated + sum(s.cost.prompt_tokens + s.cost.scored_tokens for s in found)
    floor, _ = best(lambda: generate(stock, prompts, n, generated), a.repeats)
    texts = [prm.render(s.problem, p.steps)[0] for s in found for p in s.particles]
    reward, _ = best(lambda: one_reward_pass(prm, texts), a.repeats)
    row |= dict(filter_s=whole, floor_s=floor + reward, filter_tokens=generated)
    row |= dict(filter_to_floor=whole / (floor + reward))
    if a.memory:
        row["peak_to_live"] = memory(lm, prm, problems, n)
    for together in (True, False) if a.loops else ():
        name = "loop" if together else "one_by_one"
        began = time.perf_counter()
        read = sum(papers_loop(lm, prm, p, n, together) for p in problems)
        seconds = time.perf_counter() - began
        row |= {f"{name}_s": seconds, f"{name}_to_filter": seconds / whole}
        row |= {f"{name}_tokens_to_filters": read / fed}
    return row


def told(row: dict[str, Any]) -> str:
    lines = [f"{row['set']}, {row['problems']} problems x {row['particles']} particles"]
    for name in ("fixed", "real"):
        ratio, seconds, speed, work, read = (
            row[f"{name}_{what}"]
            for what in ("to_generate", "s", "tokens_per_s", "at_work", "read_to_copy")
        )
        lines.append(
            f"  (a) proposal / generate, {name:5} steps  {ratio:.2f}  ("
            f"{seconds:.1f} s, {speed:.0f} tokens/s, slots at work {work:.2f}, "
            f"read / copy {read:.2f})"
        )
        if packing := row.get(f"{name}_to_packed"):
            lines.append(f"      / generate on packed weights  {packing:.2f}")
            lines.append(
                f"      / proposal on plain weights  {row[name + '_to_plain']:.2f}"
            )
    ratio, seconds = row["filter_to_floor"], row["filter_s"]
    lines.append(f"  (b) filter / floor  {ratio:.2f}  ({seconds:.1f} s)")
    if "loop_s" in row:
        together, apart = row["loop_to_filter"], row["one_by_one_to_filter"]
        lines.append(f"  (c) paper's loops / filter  {together:.1f}, {apart:.1f}")
    if "peak_to_live" in row:
        lines.append(f"  memory: peak / live key-values  {row['peak_to_live']:.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="minimath-small")
    parser.add_argument("--prm", default="minimath-prm", help="self: the model itself")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("-n", "--particles", type=int, nargs="+", default=[64])
    parser.add_argument("--problems", type=Path, help="a file; else MiniMath's sets")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--max-tokens", type=int, default=2048, help="a particle")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loops", action="store_true", help="measure (c) too")
    parser.add_argument("--memory", action="store_true", help="measure memory too")
    parser.add_argument("--out", type=Path, help="write a record to this JSON file")
    a = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lm = LanguageModel.load(a.model, dtype=a.dtype)
    stock = AutoModelForCausalLM.from_pretrained(
        **locate(a.model), dtype=lm.model.dtype, attn_implementation="sdpa"
    ).to(lm.device)
    own = a.prm == "self"
    prm = RewardModel.judging(lm) if own else RewardModel.load(a.prm, dtype=a.dtype)
    if a.problems:
        sets = {a.problems.stem: read_problems(a.problems)}
    else:  # level 4 of MiniMATH-500; MiniAIME is all of level 6
        names = ("minimath500", "miniaime")
        sets = {n: [p.problem for p in load_set(n) if p.level in (4, 6)] for n in names}
    rows = []
    for name, count, n in itertools.product(sets, a.counts, a.particles):
        row = dict(set=name) | measure(lm, stock, prm, sets[name][:count], n, a)
        rows.append(row)
        print(told(row), flush=True)
        if a.out:
            settings = vars(a) | dict(out=None, problems=a.problems and a.problems.name)
            settings |= dict(model=Path(a.model).name, prm=Path(a.prm).name)
            write_record(
                a.out, "python -m benchmarks.engine", dict(rows=rows), **settings
            )


if __name__ == "__main__":
    main()
