"""What the engine is timed against: `model.generate`, one pass of the reward model over
finished texts, the loops of the paper's released code, and itself on weights as
transformers loads them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList

from pfref import LanguageModel, Proposal, RewardModel
from pfref.groups import in_groups, padded
from pfref.packing import Packed, plain
from pfref.randomness import generator
from pfref.resampling import multinomial
from pfref.settings import Settings
from pfref.solver import in_batches


@contextmanager
def unpacked(lm: LanguageModel) -> Iterator[None]:
    """`lm` with its linear layers as transformers loads them."""
    parts = [
        (name, part)
        for name, part in lm.model.named_modules()
        if isinstance(part, Packed)
    ]
    try:
        for name, part in parts:
            linear = nn.Linear(1, 1, part.bias is not None, device="meta")
            linear.weight, linear.bias = nn.Parameter(plain(part.weight)), part.bias
            lm.model.set_submodule(name, linear)
        lm.head = lm.model.get_output_embeddings()
        yield
    finally:
        for name, part in parts:
            lm.model.set_submodule(name, part)
        lm.head = lm.model.get_output_embeddings()


def left_padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor(
        [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device
    )
    return ids, mask


@torch.inference_mode()
def generate(model: Any, prompts: list[list[int]], particles: int, tokens: int) -> None:
    """`model.generate` for about as many tokens, all rows equally long, so that none
    waits.
    """
    # torch 2.13 on a CPU copies the head's weights for every row of a bfloat16 slice
    # that is not contiguous: 35 GB with 128 rows and Qwen's vocabulary.
    head = model.get_output_embeddings()
    whole = head.register_forward_pre_hook(lambda _, given: given[0].contiguous())
    for part in in_batches(len(prompts), Settings(particles=particles)):
        ids, mask = left_padded(
            [prompt for prompt in prompts[part] for _ in range(particles)],
            model.device,
        )
        model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=0.8,
            top_k=0,
            eos_token_id=None,
            pad_token_id=0,
            max_new_tokens=max(1, round(tokens / len(prompts) / particles)),
        )
    whole.remove()


@torch.inference_mode()
def one_reward_pass(prm: RewardModel, texts: list[list[int]]) -> None:
    """All solutions through the reward model once, those of like length together."""
    for group in in_groups([len(text) for text in texts]):
        ids = padded([texts[k] for k in group], prm.device)
        last = torch.tensor([len(texts[k]) - 1 for k in group], device=prm.device)
        hidden = prm.body(input_ids=ids).last_hidden_state
        prm.head(hidden[torch.arange(len(group)), last].float())


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
    """One problem, as the paper's released code goes about it: for all particles
    `together`, or one by one.

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
        read, _ = prm.render(problem, steps)
        ids = torch.tensor([read], device=prm.device)
        hidden = prm.body(input_ids=ids).last_hidden_state[0, -1]
        scores[k] = prm.head(hidden.float()).item()
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
