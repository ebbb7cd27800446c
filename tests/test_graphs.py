"""Tokens that are recorded once and replayed are those that the host would speak."""

import copy
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pfref import LanguageModel, Proposal
from pfref.graphs import Repeater
from pfref.probe import Probe
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.smc import ParticleFilter
from tests.enumerable import END, PROPOSAL, tokenizer_of, world
from tests.pretended_graph import Recorder

TEXTS = ["abba", "ab", "bbbab"]
LONG = Proposal(temperature=1.2, max_step_tokens=20, max_tokens=50, max_steps=12)


def found(lm: LanguageModel, prm: Any, proposal: Proposal, n: int = 8) -> Any:
    model = Reasoning(lm, prm, TEXTS, proposal)
    run = ParticleFilter(model, n, generators(3, 3), threshold=1.0).run()
    state = run.last.state
    cache = state.paths.work.cache
    told = state.paths.tokens, state.paths.texts, cache.calls, cache.tokens
    return told, run.last.log_weights.flatten().tolist()


def alike(one: Any, other: Any, error: float) -> bool:
    return one[0] == other[0] and one[1] == pytest.approx(other[1], rel=0, abs=error)


def as_on_a_gpu(probed: bool = False) -> tuple[LanguageModel, Any]:
    """A world whose host looks every eight tokens, as it does on a GPU."""
    own, prm = world()
    lm = LanguageModel(own.model, own.tokenizer)
    lm.look, lm.spare = 8, 0.25
    said = torch.linspace(-1, 1, 16), torch.tensor(0.3)
    return lm, Probe(lm, 1, *said) if probed else prm


@pytest.mark.parametrize("probed", [False, True])
@pytest.mark.parametrize("proposal", [PROPOSAL, replace(PROPOSAL, step_tokens=2), LONG])
def test_recorded_tokens_are_the_same(proposal: Proposal, probed: bool) -> None:
    lm, prm = as_on_a_gpu(probed)
    assert lm.repeat.record is None, "there is nothing to record on a CPU"
    plain = found(lm, prm, proposal)
    lm.repeat = Repeater(recorder := Recorder())
    for _ in range(2):  # a second batch begins with an empty cache
        # A record sees keys further on, so that a state's sums are rounded otherwise.
        assert alike(found(lm, prm, proposal), plain, 1e-4 if probed else 0.0)
    assert lm.repeat.record is not None and recorder.replays > 8
    lm.listen(())


def test_batches_take_turns() -> None:
    """Two of one model, each token of one after some of the other's."""
    lm, _ = as_on_a_gpu()
    prompts = [lm.prompt(text) for text in TEXTS]

    def written(together: bool) -> list[Any]:
        sources = [generators(k, 3) for k in (1, 2)]
        both = [lm.start(prompts, 4, LONG) for _ in sources]
        turns = [0, 1] * 12 if together else [0] * 12 + [1] * 12
        for k in turns:
            active = ~(both[k].ended | both[k].truncated)
            if active.any():
                lm.extend(both[k], active, sources[k])
        return [paths.tokens for paths in both]

    plain = written(together=False)
    lm.repeat = Repeater(recorder := Recorder())
    assert written(together=True) == plain == written(together=False)
    assert recorder.replays > 8


@pytest.mark.parametrize("midway", [False, True])
def test_a_model_that_cannot_be_recorded_goes_on_without(midway: bool) -> None:
    """Such as one whose forward pass asks the device where its tokens go."""
    lm, prm = as_on_a_gpu()
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


def test_memory_that_does_not_suffice_once() -> None:
    """For a record, that is: these tokens go without, and the next are recorded."""
    lm, prm = as_on_a_gpu()
    plain, recorder, failed = found(lm, prm, LONG), Recorder(), list[bool]()

    def record(action: Any) -> Any:
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("out of memory")
        return recorder(action)

    lm.repeat = Repeater(record)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(lm, prm, LONG) == plain
    assert lm.repeat.record is not None and recorder.replays > 8


def test_records_of_one_size_share_their_memory() -> None:
    """So they see keys as far as there is room, and not a little further each time."""
    lm, prm = as_on_a_gpu()
    recorder, seen = Recorder(), list[tuple[int, int]]()

    def record(action: Any) -> Any:
        replay, cache = recorder(action), action.__self__.cache
        seen.append((cache.reach, cache.capacity))
        return replay

    lm.repeat = Repeater(record)
    found(lm, prm, LONG)
    assert seen and all(reach == capacity for reach, capacity in seen)


def test_look_stays_the_same_in_a_step() -> None:
    lm, _ = as_on_a_gpu()
    paths = lm.start([lm.prompt(text) for text in TEXTS], 1, LONG)
    paths.work.steps[1] = 8  # population 1 has looked once
    lm.look = 64
    with pytest.raises(ValueError, match="stays the same in a step"):
        lm.extend(paths, torch.tensor([True, False, False]), generators(5, 3))


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
    long = replace(LONG, max_tokens=200, max_step_tokens=60, max_steps=30)
    assert lm.repeat.record is not None and lm.look == 8
    recorded = [found(lm, prm, long, 16) for _ in range(2)]  # two batches
    assert lm.repeat.record is not None, "it could not be recorded"
    lm.repeat = Repeater()
    plain = found(lm, prm, long, 16)
    assert recorded == [plain, plain]
