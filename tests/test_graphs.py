"""Tokens that are recorded once and replayed are those that the host would speak."""

import copy
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import pfref.lm
from pfref import LanguageModel, Proposal
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.smc import ParticleFilter
from tests.enumerable import END, PROPOSAL, tokenizer_of, world

TEXTS = ["abba", "ab", "bbbab"]


def replayed_on_the_host(_: Any) -> Any:
    """What the host does in an action is done once, when it is recorded; a replay does
    the device's part.
    """

    def record(action: Any) -> Any:
        cache = action.__self__.cache

        def replay() -> None:
            held, calls = list(cache.held), cache.calls
            action()
            cache.held, cache.calls = held, calls

        cache.calls += 1
        for slot in cache.batch:
            cache.held[slot] += 1
        held_then = list(cache.held)

        def at_first() -> None:
            now = list(cache.held)
            for slot in cache.batch:  # as long as they were when it was recorded
                cache.held[slot] = held_then[slot] - 1
            replay()
            cache.held = now

        return at_first

    return record


def found(lm: LanguageModel, prm: Any, proposal: Proposal, n: int = 8) -> Any:
    model = Reasoning(lm, prm, TEXTS, proposal)
    run = ParticleFilter(model, n, generators(3, 3), threshold=1.0).run()
    state = run.last.state
    cache = state.paths.work.cache
    told = state.paths.tokens, state.paths.texts, run.last.log_weights.tolist()
    return told, (cache.calls, cache.tokens)


@pytest.mark.parametrize("step_tokens", [None, 2])
def test_recorded_tokens_are_the_same(
    monkeypatch: pytest.MonkeyPatch, step_tokens: int | None
) -> None:
    from dataclasses import replace

    proposal = replace(PROPOSAL, step_tokens=step_tokens)
    own, prm = world()
    lm = LanguageModel(own.model, own.tokenizer)
    lm.look, lm.spare = 8, 0.25
    assert not lm.graphs, "there is nothing to record on a CPU"
    plain = found(lm, prm, proposal)
    monkeypatch.setattr(pfref.lm, "recorder", replayed_on_the_host)
    lm.graphs = True
    assert found(lm, prm, proposal) == plain


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("heads", [4, 16])  # with the kernel and without
def test_recorded_on_a_gpu(heads: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=4,
            eos_token_id=END,
            bos_token_id=None,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.2,
        )
        model = LlamaForCausalLM(config).eval().requires_grad_(False).cuda()
    prm = copy.deepcopy(world()[1])
    prm.body, prm.head = prm.body.cuda(), prm.head.cuda()
    prm.device = torch.device("cuda")
    lm = LanguageModel(model, tokenizer_of())
    long = Proposal(temperature=1.2, max_step_tokens=60, max_tokens=200, max_steps=30)
    assert lm.graphs and lm.look == 8
    recorded = found(lm, prm, long, 16)
    lm.graphs = False
    assert found(lm, prm, long, 16) == recorded
