"""Tokens that are recorded once and replayed are those that the host would speak."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pfref import LanguageModel, Proposal
from pfref.graphs import Repeater
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.smc import ParticleFilter
from tests.enumerable import END, PROPOSAL, tokenizer_of, world

TEXTS = ["abba", "ab", "bbbab"]


def replayed_on_the_host(action: Any) -> Any:
    """A recorder: what the host does in an action is done once, now; a replay does the
    device's part. What a record allocates is made anew at every replay, so it may not
    allocate what outlives a token.
    """
    decoder, cache = action.__self__, action.__self__.cache
    lasting = buffers(cache)
    assert lasting, "the cache's buffers would be made in the record"
    then, ahead = list(cache.held), decoder.ahead
    cache.calls += 1
    for slot in cache.batch:
        cache.held[slot] += 1

    def replay() -> None:
        now, calls = cache.held, cache.calls
        cache.held, decoder.ahead = list(then), ahead  # as when it was recorded
        action()
        cache.held, cache.calls, decoder.ahead = now, calls, 1
        assert buffers(cache) == lasting, "the record has made a buffer"

    return replay


def buffers(cache: Any) -> list[int]:
    return [buffer.data_ptr() for kind in cache.own for buffer in kind]


def found(lm: LanguageModel, prm: Any, proposal: Proposal, n: int = 8) -> Any:
    model = Reasoning(lm, prm, TEXTS, proposal)
    run = ParticleFilter(model, n, generators(3, 3), threshold=1.0).run()
    state = run.last.state
    cache = state.paths.work.cache
    told = state.paths.tokens, state.paths.texts, run.last.log_weights.tolist()
    return told, (cache.calls, cache.tokens)


@pytest.mark.parametrize("step_tokens", [None, 2])
def test_recorded_tokens_are_the_same(step_tokens: int | None) -> None:
    proposal = replace(PROPOSAL, step_tokens=step_tokens)
    own, prm = world()
    lm = LanguageModel(own.model, own.tokenizer)
    lm.look, lm.spare = 8, 0.25
    assert lm.repeat.record is None, "there is nothing to record on a CPU"
    plain = found(lm, prm, proposal)
    lm.repeat = Repeater(replayed_on_the_host)
    for _ in range(2):  # another population begins with an empty cache
        assert found(lm, prm, proposal) == plain


@pytest.mark.parametrize("midway", [False, True])
def test_a_model_that_cannot_be_recorded_goes_on_without(midway: bool) -> None:
    """Such as one whose forward pass asks the device where its tokens go."""
    own, prm = world()
    lm = LanguageModel(own.model, own.tokenizer)
    lm.look, lm.spare = 8, 0.25
    plain = found(lm, prm, PROPOSAL)

    def refuse(action: Any) -> Any:
        cache = action.__self__.cache
        if midway:  # the host's part of a pass is done, and the device's is not
            cache.calls += 1
            cache.held = [length + 1 for length in cache.held]
        raise RuntimeError("operation not permitted when stream is capturing")

    lm.repeat = Repeater(refuse)
    with pytest.warns(UserWarning, match="tokens are not recorded"):
        assert found(lm, prm, PROPOSAL) == plain
    assert lm.repeat.record is None


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
    assert lm.repeat.record is not None and lm.look == 8
    recorded = [found(lm, prm, long, 16) for _ in range(2)]
    assert lm.repeat.record is not None, "it could not be recorded"
    lm.repeat = Repeater()
    plain = found(lm, prm, long, 16)
    assert recorded == [plain, plain]
