"""How fast is the engine? Wall-clock ratios within one run: `python -m benchmarks.engine`.

(a) the proposal alone            against `model.generate` on as many tokens
(b) the whole filter              against the floor of standard means: those tokens through `generate`, and one full pass of
    the reward model, which reads the prompt once for every particle, and so can be beaten
(c) the loop of the paper's code  against the whole filter: every prefix is re-encoded at every step, and the reward model
    reads one sequence at a time. The released code has two such loops. One proposes for all particles together, for
    finished ones too, which it also scores again; the other takes the particles that are at work one by one.
Memory: the most bytes that tensors held at once during the filter, beyond the weights, against the most key-value bytes
that live tokens took after any of its steps.
Several problems are taken as `solve` takes them, 128 particles in a batch, and so are its rivals in (a) and (b); the
loops of (c) take one problem after another, as the released code does.
Every figure is the best of several repeats, in (c) of one; (c) runs the same number of particles on the same problems.
Its cost grows with the square of a solution's length, ours does not: so short problems (MiniMATH-500, level 4) and long
ones (MiniAIME) are measured.
"""

import argparse
import itertools
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.utils import logging

from pfref import LanguageModel, Proposal, RewardModel, solve
from pfref.minimath.problems import load_set
from pfref.randomness import generator
from pfref.reasoning import Thoughts
from pfref.records import write_record
from pfref.resampling import multinomial
from pfref.smc import Step
from pfref.solver import in_batches


def proposal_alone(lm: LanguageModel, problems: list[str], particles: int) -> int:
    """Every particle to its end, step by step; the tokens that were generated."""
    proposal, tokens = Proposal(), 0
    for part in in_batches(len(problems), particles):
        some = problems[part]
        generators = [generator(0, text) for text in some]
        population = lm.start([lm.prompt(text) for text in some], particles, proposal)
        while (active := ~(population.ended | population.truncated)).any():
            lm.extend(population, active, proposal, generators)
        tokens += int(population.generated.sum())
    return tokens


def left_padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor(
        [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device
    )
    return ids, mask


@torch.inference_mode()
def generate(
    lm: LanguageModel, problems: list[str], particles: int, tokens: int
) -> None:
    """`model.generate` for about as many tokens, all rows equally long, so that none waits."""
    for part in in_batches(len(problems), particles):
        ids, mask = left_padded(
            [lm.prompt(text) for text in problems[part] for _ in range(particles)],
            lm.device,
        )
        lm.model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=0.8,
            top_k=0,
            eos_token_id=None,
            pad_token_id=0,
            max_new_tokens=max(1, round(tokens / len(problems) / particles)),
        )


@torch.inference_mode()
def one_reward_pass(prm: RewardModel, texts: list[list[int]]) -> None:
    """All solutions through the reward model once, padded to the longest of their batch."""
    for part in in_batches(len(texts), 1):
        width = max(map(len, some := texts[part]))
        ids = torch.tensor(
            [row + [0] * (width - len(row)) for row in some], device=prm.device
        )
        prm.head(prm.body(input_ids=ids).last_hidden_state.float())


def judged_text(prm: RewardModel, problem: str, steps: Sequence[str]) -> list[int]:
    """What the reward model reads of a solution, from the beginning."""
    return prm.prompt(problem) + [
        token for k, step in enumerate(steps) for token in prm.step_tokens(step, k == 0)
    ]


class StepEnds(StoppingCriteria):
    """Stop when every row has written the delimiter or an end token."""

    def __init__(self, ends: Tensor, start: int) -> None:
        self.ends, self.start = ends, start

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return torch.isin(input_ids[:, self.start :], self.ends).any(1)


@torch.inference_mode()
def papers_loop(
    lm: LanguageModel, prm: RewardModel, problem: str, particles: int, together: bool
) -> int:
    """One problem, as the paper's released code goes about it: for all particles `together`, or one by one.

    Returns the tokens that passed through the two models.
    """
    source, prompt = generator(0), lm.prompt(problem)
    delimiter = lm.tokenizer(Proposal().delimiter)["input_ids"][0]
    ends = torch.tensor([delimiter, *lm.end_tokens], device=lm.device)
    tokens: list[list[int]] = [[] for _ in range(particles)]
    done, scores, fed = [False] * particles, [0.0] * particles, 0

    def propose(some: list[int]) -> int:
        ids, mask = left_padded([prompt + tokens[k] for k in some], lm.device)
        out = lm.model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=0.8,
            top_k=0,
            max_new_tokens=64,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([StepEnds(ends, ids.shape[1])]),
        )
        for k, new in zip(some, out[:, ids.shape[1] :].tolist(), strict=True):
            end = next(
                (i for i, token in enumerate(new) if token in ends), len(new) - 1
            )
            if not done[k]:  # what a finished one says more is thrown away
                tokens[k] = tokens[k] + new[: end + 1]
                done[k] = new[end] in lm.end_tokens
        return int(mask.sum()) + len(some) * (
            out.shape[1] - ids.shape[1] - 1
        )  # the last one is not fed

    def judge(k: int) -> int:
        steps = [
            s
            for s in lm.tokenizer.decode(tokens[k], skip_special_tokens=True).split(
                "\n\n"
            )
            if s
        ]
        read = judged_text(prm, problem, steps)
        logits = prm.head(
            prm.body(input_ids=torch.tensor([read], device=prm.device))
            .last_hidden_state[0, -1]
            .float()
        )
        scores[k] = (logits[1] - logits[0]).item()
        return len(read)

    for _ in range(Proposal().max_steps):
        if all(done):  # resampling may have kept only finished particles
            break
        for group in (
            [list(range(particles))]
            if together
            else [[k] for k in range(particles) if not done[k]]
        ):
            fed += propose(group) + sum(judge(k) for k in group)
        weights = torch.softmax(torch.tensor(scores, dtype=torch.float64), 0)
        parents = multinomial(
            weights, torch.rand(particles, generator=source, dtype=torch.float64)
        ).tolist()
        tokens, done, scores = (
            [tokens[k] for k in parents],
            [done[k] for k in parents],
            [scores[k] for k in parents],
        )
    return fed


class LiveBytes(TorchDispatchMode):
    """Adds up the bytes of all storages that operations create, and takes them off when they die."""

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


def memory(
    lm: LanguageModel, prm: RewardModel, problems: list[str], particles: int
) -> tuple[int, int]:
    """Most bytes held by tensors during a run, and the most key-value bytes of live tokens after any of its steps."""
    live = [0]

    def count(step: Step[Thoughts]) -> None:
        caches = (step.state.population.cache, step.state.judgement.cache)
        live.append(
            sum(
                int(c.lengths.sum()) * c.bytes // max(1, len(c.lengths) * c.capacity)
                for c in caches
            )
        )

    with LiveBytes() as held:
        solve(problems, lm, prm, particles, watch=count)
    return held.peak, max(live)


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


def measure(
    lm: LanguageModel,
    prm: RewardModel,
    problems: list[str],
    particles: int,
    repeats: int,
) -> dict[str, float]:
    proposal_alone(lm, problems, particles)  # warm up
    alone, tokens = best(lambda: proposal_alone(lm, problems, particles), repeats)
    rival, _ = best(lambda: generate(lm, problems, particles, tokens), repeats)
    whole, found = best(lambda: solve(problems, lm, prm, particles), repeats)
    generated = sum(one.cost.generated_tokens for one in found)
    fed_once = generated + sum(
        one.cost.prompt_tokens + one.cost.scored_tokens for one in found
    )
    floor, _ = best(lambda: generate(lm, problems, particles, generated), repeats)
    texts = [
        judged_text(prm, one.problem, particle.steps)
        for one in found
        for particle in one.particles
    ]
    reward, _ = best(lambda: one_reward_pass(prm, texts), repeats)
    peak, live = memory(lm, prm, problems, particles)
    (paper, fed), (by_one, _) = (
        best(
            lambda: sum(papers_loop(lm, prm, p, particles, together) for p in problems),
            1,
        )
        for together in (True, False)
    )
    return dict(
        problems=len(problems),
        particles=particles,
        tokens=generated,
        proposal_s=alone,
        generate_s=rival,
        proposal_to_generate=alone / rival,
        filter_s=whole,
        floor_s=floor + reward,
        filter_to_floor=whole / (floor + reward),
        paper_s=paper,
        paper_to_filter=paper / whole,
        paper_tokens_to_filters=fed / fed_once,
        paper_one_by_one_s=by_one,
        paper_one_by_one_to_filter=by_one / whole,
        peak_bytes=peak,
        live_kv_bytes=live,
        peak_to_live=peak / live,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="minimath-small")
    parser.add_argument("--prm", default="minimath-prm")
    parser.add_argument("-n", "--particles", type=int, default=64)
    parser.add_argument(
        "--sets",
        nargs="+",
        default=["minimath500", "miniaime"],
        choices=["minimath500", "miniaime"],
    )
    parser.add_argument("--problems", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write a record to this JSON file")
    a = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lm, prm = LanguageModel.load(a.model), RewardModel.load(a.prm)
    rows = []
    for name, count in itertools.product(a.sets, a.problems):
        texts = [p.problem for p in load_set(name) if p.level in (4, 6)][
            :count
        ]  # MiniAIME is all of level 6
        row = dict(set=name) | measure(lm, prm, texts, a.particles, a.repeats)
        rows.append(row)
        print(
            f"{name}, {count} problems x {a.particles} particles, {row['tokens']} tokens, {torch.get_num_threads()} threads, {lm.device}\n"
            f"  (a) proposal / generate          {row['proposal_to_generate']:.2f}  ({row['proposal_s']:.2f} s / {row['generate_s']:.2f} s)\n"
            f"  (b) filter / floor               {row['filter_to_floor']:.2f}  ({row['filter_s']:.2f} s / {row['floor_s']:.2f} s)\n"
            f"  (c) paper's loop / filter        {row['paper_to_filter']:.1f}  ({row['paper_s']:.2f} s / {row['filter_s']:.2f} s), {row['paper_tokens_to_filters']:.1f} times the tokens\n"
            f"      its one-by-one loop / filter {row['paper_one_by_one_to_filter']:.1f}  ({row['paper_one_by_one_s']:.2f} s)\n"
            f"  memory: peak / live key-values   {row['peak_to_live']:.2f}  ({row['peak_bytes'] / 1e6:.1f} MB / {row['live_kv_bytes'] / 1e6:.1f} MB)",
            flush=True,
        )
    if a.out:
        write_record(
            a.out,
            "python -m benchmarks.engine",
            dict(rows=rows),
            model=a.model,
            prm=a.prm,
            repeats=a.repeats,
        )


if __name__ == "__main__":
    main()
