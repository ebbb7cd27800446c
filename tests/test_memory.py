"""Memory is planned before it is taken, and a batch that does not fit is smaller."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pfref import LanguageModel, RewardModel
from pfref.errors import UserError
from pfref.minimath.problems import load_set
from pfref.probe import Probe
from pfref.settings import Proposal, Settings
from pfref.study import memory
from pfref.study.recipe import Cell, model_defaults

PROBLEMS = [p.problem for p in load_set("minimath500")[:4]]


@pytest.fixture(scope="module")
def pair() -> Any:
    return LanguageModel.load("minimath-small"), RewardModel.load("minimath-prm")


def cell(**changes: Any) -> Cell:
    settings = Settings(particles=8, batch=64, proposal=Proposal(max_tokens=100))
    models = dict(model_defaults())
    return Cell("filter", replace(settings, **changes), models, "minimath", "file")


def bytes_here(cell: Cell, lm: Any, prm: Any) -> float:
    """Of a row, where both models are on the CPU."""
    (size,) = memory.row_bytes(cell, lm, prm, PROBLEMS).values()
    return size


def free(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(value))


def test_a_row_counts_both_models_its_prompt_and_its_logits(pair: Any) -> None:
    lm, prm = pair
    keys = 0
    for model in (lm.model, prm.body):
        config = model.config
        size = config.hidden_size // config.num_attention_heads
        keys += 2 * config.num_hidden_layers * config.num_key_value_heads * size * 4
    longest = max(len(lm.prompt(text)) for text in PROBLEMS)
    expected = keys * (112.5 + longest / 8) + 12 * lm.vocabulary
    assert bytes_here(cell(), lm, prm) == pytest.approx(expected)


def test_a_probe_has_no_cache_and_the_policy_counts_once(pair: Any) -> None:
    lm, prm = pair
    width = lm.model.config.hidden_size
    probe = Probe(lm, 1, torch.zeros(width), torch.tensor(0.0))
    both = bytes_here(cell(), lm, prm)
    assert bytes_here(cell(), lm, probe) < both
    assert memory.bodies(lm, probe) == [lm.model.base_model]
    itself = SimpleNamespace(body=lm.model.base_model)
    assert memory.bodies(lm, itself) == [lm.model.base_model]
    assert len(memory.bodies(lm, prm)) == 2
    lm.listen(())


@pytest.mark.parametrize("rows, batch", [(1000, 64), (20, 16), (8, 8)])
def test_as_many_rows_as_fit(
    monkeypatch: pytest.MonkeyPatch, pair: Any, rows: int, batch: int
) -> None:
    each = bytes_here(cell(), *pair)
    free(monkeypatch, (rows + 0.5) * each / memory.SHARE)
    assert memory.fitting(cell(), pair[0], pair[1], PROBLEMS) == batch


def test_one_problem_that_does_not_fit_is_told(
    monkeypatch: pytest.MonkeyPatch, pair: Any
) -> None:
    each = bytes_here(cell(), *pair)
    free(monkeypatch, 7.5 * each / memory.SHARE)
    with pytest.raises(UserError, match="8 particles of one problem .* smaller budget"):
        memory.fitting(cell(), pair[0], pair[1], PROBLEMS)


def test_where_nobody_says_what_is_free(
    monkeypatch: pytest.MonkeyPatch, pair: Any
) -> None:
    free(monkeypatch, 0)
    assert memory.fitting(cell(), pair[0], pair[1], PROBLEMS) == 64
    assert "free" not in memory.told(cell(), pair[0], pair[1], PROBLEMS)


def test_the_estimate_says_that_batches_will_be_smaller(
    monkeypatch: pytest.MonkeyPatch, pair: Any
) -> None:
    each = bytes_here(cell(), *pair)
    free(monkeypatch, 20 * each)
    assert "smaller" in memory.told(cell(), pair[0], pair[1], PROBLEMS)
    free(monkeypatch, 200 * each)
    assert "64 rows" in memory.told(cell(), pair[0], pair[1], PROBLEMS)
    assert "smaller" not in memory.told(cell(), pair[0], pair[1], PROBLEMS)


def test_the_estimate_counts_the_rows_of_sweeps_that_share_their_passes(
    monkeypatch: pytest.MonkeyPatch, pair: Any
) -> None:
    free(monkeypatch, 0)
    sweeps = cell(method="gibbs", particles=64, sweeps=4)
    assert "for 64 rows" in memory.told(sweeps, pair[0], pair[1], PROBLEMS)


def test_each_device_must_hold_its_own_model(
    monkeypatch: pytest.MonkeyPatch, pair: Any
) -> None:
    lm, prm = pair
    here, there = torch.device("cpu"), torch.device("cuda", 1)
    parameter = SimpleNamespace(element_size=lambda: 4, device=there)

    class Elsewhere(torch.nn.Module):
        config = prm.body.config

        def parameters(self, recurse: bool = True) -> Any:
            return iter([parameter])

    apart = SimpleNamespace(body=Elsewhere())
    sizes = memory.row_bytes(cell(), lm, apart, PROBLEMS)
    assert sum(sizes.values()) == pytest.approx(bytes_here(cell(), lm, prm))
    for small, rows in ((here, 20), (there, 12)):
        own = {d: 1e12 for d in sizes} | {small: (rows + 0.5) * sizes[small] / 0.9}
        monkeypatch.setattr(memory, "free_bytes", lambda d, own=own: int(own[d]))
        fit = rows // 8 * 8
        assert memory.fitting(cell(), lm, apart, PROBLEMS) == fit
    own = {here: int(1e12), there: int(7.5 * sizes[there])}
    monkeypatch.setattr(memory, "free_bytes", lambda d: own[d])
    with pytest.raises(UserError, match="are free on cuda:1; take a smaller budget"):
        memory.fitting(cell(), lm, apart, PROBLEMS)


def test_a_container_may_give_less_than_its_machine(tmp_path: Path) -> None:
    def say(limit: str) -> int:
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text("700\n")
        (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
        return memory.container_bytes(10_000, tmp_path)

    assert say("1000") == 450
    assert say("max") == 10_000
    assert say("100") == 1  # nothing, and not: nobody says
    assert memory.container_bytes(10_000, tmp_path / "none") == 10_000


def test_this_machine_says_what_is_free() -> None:
    found = memory.free_bytes(torch.device("cpu"))
    assert found == 0 or found > 1 << 20


def test_no_row_is_longer_than_the_context(pair: Any) -> None:
    long = cell(proposal=Proposal(max_tokens=10**6))
    whole = cell(proposal=Proposal(max_tokens=pair[0].context))
    sizes = [bytes_here(c, *pair) for c in (long, whole)]
    assert sizes[0] == sizes[1]


def test_the_estimate_refuses_what_the_run_refuses(
    monkeypatch: pytest.MonkeyPatch, pair: Any
) -> None:
    each = bytes_here(cell(), *pair)
    free(monkeypatch, 5 * each)
    assert "do not fit" in memory.told(cell(), pair[0], pair[1], PROBLEMS)
