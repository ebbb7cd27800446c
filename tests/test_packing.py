"""Packed layers compute what the layers they are made from do, up to the last bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from benchmarks.rivals import unpacked
from pfref import LanguageModel, Proposal, RewardModel, loading, packing
from pfref.loading import load_weights, locate
from pfref.packing import Packed, pack, plain
from tests.hub_layouts import language_model, qwen_tokenizer

ASKED = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
SUPPORTED = ASKED is not None and ASKED()
pytestmark = pytest.mark.skipif(not SUPPORTED, reason="oneDNN has no bfloat16 here")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "cpu_multiplies_bfloat16", lambda: True)


def shapes() -> Iterator[tuple[int, int, tuple[int, ...]]]:
    for width in (1, 7, 64, 100, 300):
        for out in (1, 5, 64, 129, 1000):
            for lead in ((), (1,), (3,), (16,), (2, 5), (4, 1), (130,), (0,)):
                yield width, out, lead


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Up to the last bit: one row's products may be added in another order."""
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=2**-7)


@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_gives_the_same_numbers(bias: bool) -> None:
    torch.manual_seed(0)
    source = torch.Generator().manual_seed(0)
    for width, out, lead in shapes():
        layer = nn.Linear(width, out, bias, dtype=torch.bfloat16)
        inputs = torch.randn(*lead, width, generator=source).bfloat16()
        same(Packed(layer)(inputs), layer(inputs))
        assert torch.equal(plain(Packed(layer).weight), layer.weight)
    rows = torch.randn(6, 9, 300, generator=source).bfloat16()
    last = rows[:, -1:]  # what the head reads, which is not contiguous
    layer = nn.Linear(300, 1000, bias, dtype=torch.bfloat16)
    same(Packed(layer)(last), layer(last.contiguous()))


def small(dtype: torch.dtype) -> Any:
    return load_weights(AutoModelForCausalLM, locate("minimath-small"), CPU, dtype)


def packed_in(model: nn.Module) -> int:
    return sum(isinstance(part, Packed) for part in model.modules())


def test_only_bfloat16_on_a_fast_cpu_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = sum(type(part) is nn.Linear for part in small(torch.float32).modules())
    assert linear and packed_in(small(torch.float32)) == 0
    assert packed_in(small(torch.bfloat16)) == linear
    monkeypatch.setattr(packing, "cpu_multiplies_bfloat16", lambda: False)
    assert packed_in(small(torch.bfloat16)) == 0
    monkeypatch.undo()
    with torch.device("meta"):
        elsewhere = nn.Sequential(nn.Linear(3, 3, dtype=torch.bfloat16))
    pack(elsewhere)
    assert packed_in(elsewhere) == 0


def test_a_layer_that_only_descends_from_a_linear_one_is_left_alone() -> None:
    class Own(nn.Linear):
        """Its product may be another."""

    wide = dict(bias=False, dtype=torch.bfloat16)
    model = nn.Sequential(Own(3, 3, **wide), nn.Sequential(nn.Linear(3, 3, **wide)))
    pack(model)
    assert [type(part) for part in model.modules()].count(Own) == packed_in(model) == 1
    assert not model[1][0].weight.requires_grad


def test_nothing_is_packed_where_torch_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    model = nn.Sequential(nn.Linear(3, 3, dtype=torch.bfloat16))
    pack(model)
    assert packed_in(model) == 0


def test_a_packed_model_is_saved_as_others_are(tmp_path: Path) -> None:
    model = small(torch.bfloat16)
    assert not model.get_input_embeddings().weight.is_mkldnn  # though the head's is
    assert model.get_output_embeddings().weight.is_mkldnn
    model.save_pretrained(tmp_path)
    other = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    before, after = model.state_dict(), other.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@torch.inference_mode()
def test_packed_models_say_what_they_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[int, torch.Tensor, torch.Tensor]:
        lm = LanguageModel.load("minimath-small", dtype="bfloat16")
        prm = RewardModel.load("minimath-prm", dtype="bfloat16")
        paths = lm.start([lm.prompt("(7 + 5) * 3"), lm.prompt("2 + 2")], 4, Proposal())
        judgement = prm.start(["2 + 2 * 9", "7 - 1"], 2)
        steps = [["2 + 18\n\n"], ["2 * 9\n\n"], ["7 - 1\n\n", "= 6\n\n"], ["6"]]
        prm.extend(judgement, torch.ones(4, dtype=torch.bool), steps)
        packed = packed_in(lm.model) + packed_in(prm.body)
        return packed, paths.work.logits.float(), prm.log_odds(judgement).float()

    count, logits, odds = run()
    monkeypatch.setattr(loading, "pack", lambda model: None)
    none, logits_before, odds_before = run()
    assert count > 0 and none == 0
    torch.testing.assert_close(logits, logits_before, atol=0.05, rtol=0.02)
    torch.testing.assert_close(odds, odds_before, atol=0.1, rtol=0.02)


def test_the_benchmark_unpacks_and_packs_again() -> None:
    lm = LanguageModel.load("minimath-small", dtype="bfloat16")
    head, count = lm.head, packed_in(lm.model)

    def logits() -> torch.Tensor:
        return lm.start([lm.prompt("2 + 2")], 2, Proposal()).work.logits.float()

    wanted = logits()
    with unpacked(lm):
        assert packed_in(lm.model) == 0 and type(lm.head) is nn.Linear
        torch.testing.assert_close(logits(), wanted, atol=0.05, rtol=0.02)
    assert lm.head is head and packed_in(lm.model) == count > 0


def test_a_packed_policy_is_its_own_judge(tmp_path: Path) -> None:
    tokenizer = qwen_tokenizer()
    model = language_model(tmp_path, tokenizer).bfloat16()
    before = RewardModel.judging(LanguageModel(model, tokenizer)).head
    pack(model)
    assert model.get_output_embeddings().weight.is_mkldnn
    lm = LanguageModel(model, tokenizer)
    after = RewardModel.judging(lm).head
    hidden = torch.randn(5, model.config.hidden_size)
    assert torch.equal(before(hidden), after(hidden))
    assert lm.vocabulary == len(tokenizer)
