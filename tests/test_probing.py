"""Training a probe: what is sampled is graded and kept, a signal that is there is found
within problems, and nothing is mistaken for one.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pfref.settings import Settings
from pfref.study.designs import NULLS, Split, fit_all, pairs_of, pairs_won
from pfref.study.outcomes import NUMBERS, Outcomes, Plan
from pfref.study.probing import main, parser, plans
from pfref.study.rewards import auc_within, calibration, gains, measured
from pfref.study.tasks import Item


def planted(problems: int = 120, samples: int = 6, signal: float = 1.5) -> Outcomes:
    """Right and wrong differ along one direction of the second layer's states; problems
    differ along another, which tells nothing within a problem.
    """
    source = torch.Generator().manual_seed(0)
    steps, states, right, solutions = [], [], [], []
    for p in range(problems):
        chance = float(torch.rand((), generator=source))
        for s in range(samples):
            good = float(torch.rand((), generator=source)) < chance
            for t in range(3):
                x = torch.randn(2, 8, generator=source)
                x[:, 0] += 3 * chance
                x[1, 1] += signal if good else -signal
                states.append(x)
                steps.append([p, s, t, 10 * (t + 1), t == 2])
                right.append(good)
            answer = "1" if good else str(s)
            solutions.append(
                dict(problem=p, answer=answer, finished=True, tokens=30, right=good)
            )
    numbers = dict(zip(NUMBERS, torch.tensor(steps).T.long(), strict=True))
    return Outcomes(torch.stack(states), numbers, torch.tensor(right), solutions)


def plan_of(data: Outcomes, samples: int = 6) -> Plan:
    count = len(data.solutions) // samples
    items = [Item(str(k), f"problem {k}", "1", level=1 + k % 2) for k in range(count)]
    return Plan(items, samples, (1, 2), "minimath", Settings())


def test_a_planted_signal_is_found_after_its_layer_only() -> None:
    data, other = planted(), planted(60)
    designs = fit_all(data, (1, 2), "cpu")
    assert set(designs) == {
        f"{name}, layer {layer}"
        for name in ("linear", "pairs", "deep")
        for layer in (1, 2)
    }
    plan = plan_of(other)
    for name, design in designs.items():
        z = design.score(other.states[:, design.place])
        found = measured(z, other, plan)
        within = found["within"]["auc"]
        assert within > 0.93 if design.layer == 2 else within < 0.6, name
        if design.layer == 2 and design.linear:
            assert found["calibration"]["error"] < 0.12, name
            assert found["chosen"]["best - one"][1] > 0


def test_a_null_model_tells_nothing_here() -> None:
    data = planted(60)
    for null in NULLS.values():
        found = measured(null(data), data, plan_of(data))
        assert found["within"]["auc"] == 0.5


def test_who_chooses_does_not_fit() -> None:
    data = planted(20)
    split = Split(data, 1, "cpu")
    chooses = set(data.numbers["problem"][split.chooses].tolist())
    fits = set(data.numbers["problem"][~split.chooses].tolist())
    assert chooses == {0, 5, 10, 15} and not chooses & fits
    assert split.share[~split.chooses].sum() == pytest.approx(16 * 6)


def test_pairs_by_hand() -> None:
    z = np.array([3.0, 1.0, 2.0, 2.0, 9.0, 0.0])
    y = np.array([1, 0, 0, 1, 1, 0])
    group = np.array([7, 7, 7, 3, 3, 5])
    wins, pairs = pairs_won(z, y, group)
    assert pairs.tolist() == [0, 0, 2] and wins.tolist() == [0, 0, 2]
    wins, pairs = pairs_won(np.array([1.0, 1.0, 2.0]), np.array([1, 0, 0]), np.zeros(3))
    assert wins.tolist() == [0.5] and pairs.tolist() == [2]
    good, bad = pairs_of(torch.tensor(y).float(), torch.tensor(group))
    assert sorted(zip(good.tolist(), bad.tolist(), strict=True)) == [(0, 1), (0, 2)]


def test_auc_counts_pairs_of_one_problem_and_step() -> None:
    found = auc_within(
        np.array([1.0, 0.0, 5.0, 4.0]),
        np.array([True, False, False, True]),
        np.array([0, 0, 1, 1]),
        np.array([2, 2, 0, 1]),  # the second problem's two are of different steps
    )
    assert found["auc"] == 1.0 and found["pairs"] == 1
    none = auc_within(np.array([1.0]), np.array([True]), np.array([0]), np.array([0]))
    assert none == dict(auc=None, interval=None, pairs=0)


def test_calibration_by_hand() -> None:
    z = np.log(np.array([0.25, 0.25, 0.75, 0.75]) / [0.75, 0.75, 0.25, 0.25])
    found = calibration(z, np.array([False, True, True, True]))
    assert found["error"] == pytest.approx(0.25)
    assert [n for _, _, n in found["bins"]] == [2, 2]


def test_gains_by_hand() -> None:
    solutions: list[dict[str, Any]] = [
        dict(answer="2", finished=True, right=False, tokens=1),
        dict(answer="2", finished=True, right=False, tokens=1),
        dict(answer="1", finished=True, right=True, tokens=1),
        dict(answer="9", finished=False, right=False, tokens=1),
    ]
    steps = torch.tensor([[0, s, t, 1, 0] for s in range(4) for t in range(2)])
    numbers = dict(zip(NUMBERS, steps.T, strict=True))
    data = Outcomes(torch.zeros(8, 1, 2), numbers, torch.zeros(8).bool(), solutions)
    plan = Plan([Item("a", "b", "1")], 4, (1,), "minimath", plan_of(data, 4).settings)
    z = np.array([9.0, -3, 9, -3, -9, 1, -9, 8])  # only the last step's counts
    found = gains(z, data, plan)
    assert [found[k][0] for k in ("one", "majority", "best", "weighted")] == [
        *(0.25, 0.0, 1.0, 1.0),
    ]
    assert found["best - majority"][0] == 1.0


def arguments(out: Path, **changes: Any) -> list[str]:
    told = dict(
        model="minimath-small",
        data="minimath500",
        task="minimath",
        problems=20,
        samples=4,
        held_out=6,
        held_out_samples=4,
        layers="2,4",
        max_tokens=120,
        batch=32,
        out=out,
    )
    named = {k.replace("_", "-"): str(v) for k, v in (told | changes).items()}
    return [w for k, v in named.items() for w in (f"--{k}", v)] + ["--quiet"]


@pytest.mark.slow
def test_from_problems_to_a_probe(tmp_path: Path, capsys: Any) -> None:
    """In parts and stopped in between, the states are those of one run."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(arguments(whole)) == 0
    assert "AUC within" in capsys.readouterr().out
    for part in ("2/2", "1/2"):
        assert main([*arguments(parts), "--part", part]) == 0
    (parts / "training" / "solutions-1.json").unlink()
    assert main(arguments(parts)) == 0
    one, two = (Outcomes.read(f / "training", 2) for f in (whole, parts))
    assert torch.equal(one.states, two.states) and one.solutions == two.solutions
    record = json.loads((whole / "probe.json").read_text())["results"]
    assert record["training"]["samples"] == 80 and record["best"] in record["designs"]
    assert (whole / "probe.safetensors").exists()
    assert main(arguments(whole, samples=5)) == 2
    assert "sampled with samples = 4" in capsys.readouterr().err


def test_problems_are_divided_without_overlap() -> None:
    flags = parser().parse_args(arguments(Path("unused"), skip_last=10))
    both = plans(flags)
    ids = [{item.id for item in plan.items} for plan in both.values()]
    assert [len(own) for own in ids] == [20, 6] and not ids[0] & ids[1]


def test_too_few_problems_are_told(tmp_path: Path, capsys: Any) -> None:
    assert main(arguments(tmp_path, problems=600)) == 2
    assert "fewer than 606" in capsys.readouterr().err


def test_out_of_memory_is_one_line(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pfref.study import probing

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(probing, "sample", full)
    assert main(arguments(tmp_path)) == 2
    assert "smaller --batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        *(dict(layers="a"), dict(task="algebra"), dict(samples="many")),
        *(dict(problems=0), dict(held_out_samples=1), dict(skip_last=-1)),
    ],
)
def test_a_wrong_flag_is_refused(tmp_path: Path, capsys: Any, changes: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments(tmp_path, **changes))
    assert stopped.value.code == 2 and "error: argument --" in capsys.readouterr().err


def test_nothing_to_tell_apart_is_told(tmp_path: Path, capsys: Any) -> None:
    assert main(arguments(tmp_path, problems=2, held_out=2, max_tokens=3)) == 2
    assert "a right and a wrong sample" in capsys.readouterr().err


def test_a_layer_that_is_not_there_is_told(tmp_path: Path, capsys: Any) -> None:
    assert main(arguments(tmp_path, layers="2,9")) == 2
    assert "no layer 9" in capsys.readouterr().err


def test_a_refused_run_does_not_lock_its_folder(tmp_path: Path) -> None:
    assert main(arguments(tmp_path, temperature=-1)) == 2
    assert not (tmp_path / "sampled.json").exists()


def test_a_run_that_is_stopped_says_so(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pfref.study import probing

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(probing, "sample", stop)
    assert main(arguments(tmp_path)) == 130
    assert "goes on" in capsys.readouterr().err


def test_a_damaged_file_is_named(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "sampled.json").write_text("{")
    assert main(arguments(tmp_path)) == 2
    assert "delete it" in capsys.readouterr().err
