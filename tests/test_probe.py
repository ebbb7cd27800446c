"""A probe reads the policy's own states: what it says is what a full pass says, and the
filter that it weighs has the exact evidence.
"""

import json
from dataclasses import replace
from pathlib import Path as File
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pfref import LanguageModel, RewardModel
from pfref.errors import UserError
from pfref.judgement import Judgement
from pfref.pair import load_models
from pfref.probe import Listener, Probe, blocks_of, unit, write_probe
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.smc import ParticleFilter
from tests.enumerable import DELIMITER, END, PROBLEM, PROPOSAL, enumerate_paths, world

WEIGHT = torch.randn(16, generator=torch.Generator().manual_seed(1)) / 2
BIAS = torch.tensor(0.3)


def policy(look: int = 1) -> LanguageModel:
    lm = LanguageModel(world()[0].model, world()[0].tokenizer)
    lm.look, lm.spare = look, 0.25 if look > 1 else 0.0
    return lm


@torch.no_grad()
def by_full_pass(lm: LanguageModel, layer: int, ids: list[int]) -> float:
    output = lm.model(torch.tensor([ids]), output_hidden_states=True)
    assert output.hidden_states is not None
    if layer == len(output.hidden_states) - 1:  # transformers norms the last one
        state = last_before_norm(lm, ids)
    else:
        state = output.hidden_states[layer][0, -1]
    return float(unit(state) @ WEIGHT + BIAS)


def last_before_norm(lm: LanguageModel, ids: list[int]) -> Tensor:
    said: list[Tensor] = []
    norm: Any = lm.model.base_model.norm
    hook = norm.register_forward_pre_hook(lambda _, args: said.append(args[0]))
    lm.model(torch.tensor([ids]))
    hook.remove()
    return said[0][0, -1]


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("look", [1, 8])
def test_a_probe_says_what_a_full_pass_says(layer: int, look: int) -> None:
    lm = policy(look)
    texts = [PROBLEM, "ab", "bbbab"]
    model = Reasoning(lm, Probe(lm, layer, WEIGHT, BIAS), texts, PROPOSAL)
    run = ParticleFilter(model, 8, generators(2, 3), threshold=1.0)
    seen = 0
    for step in run:
        state = step.state
        for row in range(24):
            if state.ready[row // 8] and state.weighed[row]:
                ids = model.prompts[row // 8] + list(state.paths.tokens[row])
                exact = by_full_pass(lm, layer, ids)
                assert float(state.z[row]) == pytest.approx(exact, abs=1e-4)
                seen += 1
    assert seen > 25
    lm.listen(())


def test_evidence_under_a_probe_is_exact() -> None:
    lm = policy()
    exact = 0.0
    for path in enumerate_paths(lm, world()[1]):
        ids, total, scored = lm.prompt(PROBLEM), 0.0, 0
        for tokens in path.steps:
            ids = ids + list(tokens)
            text = [t for t in tokens if t not in (END, DELIMITER)]
            if text or (not scored and tokens[-1] == END):
                total += by_full_pass(lm, 1, ids)
                scored += 1
        exact += float(torch.tensor(path.log_p + total, dtype=torch.float64).exp())
    model = Reasoning(lm, Probe(lm, 1, WEIGHT, BIAS), [PROBLEM] * 400, PROPOSAL)
    run = ParticleFilter(model, 16, generators(5, 400)).run()
    z = run.last.log_evidence.exp()
    assert abs(z.mean() - exact) < 3 * z.std() / 20
    assert z.std() / 20 < 0.1 * exact
    lm.listen(())


def test_a_probe_costs_no_pass() -> None:
    lm = policy()
    model = Reasoning(lm, Probe(lm, 1, WEIGHT, BIAS), [PROBLEM], PROPOSAL)
    state = ParticleFilter(model, 4, generators(0, 1)).run().last.state
    assert state.judgement.cache.calls == 0
    assert state.judgement.scored.tolist() == [0]
    lm.listen(())


def test_listening_ends_and_the_next_layers_replace_the_last() -> None:
    lm = policy()
    lm.listen((1, 2))
    lm.listen((2,))
    paths = lm.start([lm.prompt(PROBLEM)], 2, PROPOSAL)
    assert paths.states is not None and paths.states.shape == (2, 16)
    lm.listen(())
    assert lm.start([lm.prompt(PROBLEM)], 2, PROPOSAL).states is None
    blocks = lm.model.base_model.layers
    hooks = [h for block in blocks for h in block._forward_hooks.values()]
    assert not any("Listener" in hook.__qualname__ for hook in hooks)


def test_a_probe_is_read_as_it_was_written(tmp_path: File) -> None:
    file = tmp_path / "p.safetensors"
    write_probe(file, WEIGHT, BIAS, layer=2, model="a", design="b")
    lm = policy()
    probe = Probe.load(file, lm)
    assert probe.layers == (2,)
    assert torch.equal(probe.weight, WEIGHT) and torch.equal(probe.bias, BIAS)
    lm.listen(())


@pytest.mark.parametrize(
    "layer, width, words",
    [(3, 16, "layers 1 to 2"), (0, 16, "no layer 0"), (1, 8, "another model")],
)
def test_a_probe_of_another_model(
    tmp_path: File, layer: int, width: int, words: str
) -> None:
    file = tmp_path / "p.safetensors"
    write_probe(file, torch.zeros(width), BIAS, layer=layer)
    with pytest.raises(UserError, match=words):
        Probe.load(file, policy())


@pytest.mark.parametrize("text", [None, "", "no tensors"])
def test_a_file_that_is_no_probe(tmp_path: File, text: str | None) -> None:
    file = tmp_path / "p.safetensors"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match="is not a probe"):
        Probe.load(file, policy())


def test_shipped_probes_have_names() -> None:
    with pytest.raises(UserError, match="one of qwen2.5-coder-0.5b-probe, qwen"):
        Probe.load("qwen-probe", policy())
    name = "qwen2.5-coder-1.5b-probe"
    with pytest.raises(UserError, match="belongs to another model|no layer"):
        Probe.load(name, policy())  # found, and not this policy's
    with pytest.raises(UserError, match="Probe.load"):
        RewardModel.load(name)


def flags(**changes: Any) -> dict[str, Any]:
    names = ("device", "prm_device", "prm_family", "prm_separator", "prm_revision")
    told: dict[str, Any] = dict.fromkeys((*names, "prm_noise", "revision"))
    told |= dict(model="minimath-small", dtype="auto", chat_template_args=None)
    return told | changes


def test_the_command_line_takes_a_probe(tmp_path: File) -> None:
    file = tmp_path / "p.safetensors"
    lm, _ = load_models(flags(prm=None))
    width = lm.model.config.hidden_size
    write_probe(file, torch.zeros(width), torch.tensor(0.5), layer=1)
    _, probe = load_models(flags(prm=str(file)))
    assert isinstance(probe, Probe) and float(probe.bias) == 0.5
    with pytest.raises(UserError, match="takes no --prm-family"):
        load_models(flags(prm=str(file), prm_family="qwen"))
    with pytest.raises(UserError, match="prm-noise"):
        load_models(flags(prm=str(file), prm_noise=1.0))


def test_states_that_are_not_finite_are_told() -> None:
    lm = policy()
    probe = Probe(lm, 1, WEIGHT, BIAS)
    judgement: Judgement = probe.start(["a"], 1)
    states = torch.full((1, 16), torch.nan)
    with pytest.raises(UserError, match="not finite"):
        probe.extend(judgement, torch.tensor([True]), [("a",)], states=states)
    lm.listen(())


def test_limits_do_not_change_what_is_heard() -> None:
    """A step cut by a limit is not read, as with any reward model."""
    lm = policy()
    short = replace(PROPOSAL, max_tokens=2)
    model = Reasoning(lm, Probe(lm, 1, WEIGHT, BIAS), [PROBLEM], short)
    state = ParticleFilter(model, 32, generators(0, 1), threshold=0.0).run().last.state
    cut = state.paths.truncated
    assert cut.any() and (state.log_g[cut & (state.z == torch.inf)] == 0).all()
    lm.listen(())


def test_what_is_written_names_its_layer(tmp_path: File) -> None:
    from safetensors import safe_open

    file = tmp_path / "p.safetensors"
    write_probe(file, WEIGHT, BIAS, layer=2, model="m")
    with safe_open(str(file), "pt") as held:
        assert json.loads(held.metadata()["probe"]) == {"layer": 2, "model": "m"}


def rewards(lm: LanguageModel, probe: Probe) -> list[float]:
    model = Reasoning(lm, probe, [PROBLEM], PROPOSAL)
    return ParticleFilter(model, 8, generators(0, 1)).run().last.state.z.tolist()


def test_two_probes_take_turns_on_one_model() -> None:
    lm = policy()
    first = Probe(lm, 1, WEIGHT, BIAS)
    before = rewards(lm, first)
    second = Probe(lm, 2, WEIGHT, BIAS)
    assert rewards(lm, second) != before
    assert rewards(lm, first) == before
    lm.listen(())
    assert rewards(lm, first) == before
    lm.listen(())


def test_two_probes_at_once_are_refused() -> None:
    lm = policy()
    runs = [
        ParticleFilter(
            Reasoning(lm, Probe(lm, k, WEIGHT, BIAS), [PROBLEM], PROPOSAL),
            4,
            generators(0, 1),
        )
        for k in (1, 2)
    ]
    steps = [iter(run) for run in runs]
    next(steps[0])
    next(steps[1])
    with pytest.raises(UserError, match="one after the other"):
        for _ in steps[0]:
            pass
    lm.listen(())


def test_a_layer_that_is_not_there_leaves_the_probe_at_work() -> None:
    lm = policy()
    probe = Probe(lm, 1, WEIGHT, BIAS)
    before = rewards(lm, probe)
    with pytest.raises(UserError, match="no layer 9"):
        lm.listen((9,))
    assert rewards(lm, probe) == before
    lm.listen(())


@pytest.mark.parametrize(
    "weight, bias, words",
    [
        (torch.full((16,), torch.nan), BIAS, "not finite"),
        (WEIGHT, torch.zeros(3), "another model"),
        (WEIGHT[None], BIAS, "another model"),
    ],
)
def test_weights_that_cannot_be(
    tmp_path: File, weight: Tensor, bias: Tensor, words: str
) -> None:
    file = tmp_path / "p.safetensors"
    write_probe(file, weight, bias, layer=1)
    with pytest.raises(UserError, match=words):
        Probe.load(file, policy())


def test_weights_in_bfloat16_are_read(tmp_path: File) -> None:
    file = tmp_path / "p.safetensors"
    write_probe(file, WEIGHT.bfloat16(), BIAS.bfloat16(), layer=1)
    lm = policy()
    assert rewards(lm, Probe.load(file, lm))
    lm.listen(())


def by_hand(state: Tensor) -> float:
    return float(state / state.square().mean().sqrt() @ WEIGHT + BIAS)


def test_a_score_stands_at_the_last_step_of_a_row_that_moved() -> None:
    lm = policy()
    probe = Probe(lm, 1, WEIGHT, BIAS)
    judgement = probe.start(["a", "b"], 2)
    states = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
    moved = torch.tensor([True, False, False, True])
    steps = [("a",), ("a", "b"), ("b",), ("a", "b", "a")]
    probe.extend(judgement, torch.zeros(4, dtype=torch.bool), steps)
    with pytest.raises(ValueError, match="reads the states"):
        probe.extend(judgement, moved, steps)
    probe.extend(judgement, moved, steps, states=states)
    wanted = torch.full((4, 3), torch.inf)
    wanted[0, 0], wanted[3, 2] = by_hand(states[0]), by_hand(states[3])
    torch.testing.assert_close(judgement.scores, wanted)
    z = probe.log_odds(judgement)
    assert z.dtype == torch.float64
    assert z[[0, 3]].tolist() == judgement.scores[[0, 3], [0, 2]].tolist()
    lm.listen(())


def test_a_probe_is_on_its_models_device() -> None:
    lm, elsewhere = policy(), torch.device("meta")
    there: Any = SimpleNamespace(
        model=lm.model,
        device=elsewhere,
        listen=lambda layers: None,
        listener=SimpleNamespace(layers=(1,)),
    )
    probe = Probe(there, 1, WEIGHT, BIAS)
    assert probe.device == probe.weight.device == probe.bias.device == elsewhere
    assert probe.start(["a"], 2).scores.device == elsewhere
    assert probe.body is lm.model  # whose memory it shares


def test_a_layer_may_give_more_than_its_states() -> None:
    lm = policy()
    listener = Listener(lm.model, (1, 2))
    states = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(3))
    for place in (0, 1):
        listener.keep(place)(nn.Identity(), (), (states[place][None], "a cache"))
    assert torch.equal(listener.states(), states[:, -1].flatten()[None])
    listener.close()


def test_the_layers_are_the_list_of_their_number() -> None:
    model = nn.Module()
    model.first = nn.Sequential(nn.Identity(), nn.Identity())
    model.experts = nn.ModuleList([nn.Identity()])
    model.layers = nn.ModuleList([nn.Identity(), nn.Identity()])
    model.config = world()[0].model.config  # two layers
    assert blocks_of(model) is model.layers
