"""A plan of many problems against figures worked out by hand, and the simulated server
against what is known of the largest of N lengths.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfref.__main__ import main
from pfref.errors import UserError
from pfref.study.recipe import Cell, Recipe
from pfref.study.records import Run, Written, read
from pfref.study.scale import as_text, machines, scale
from pfref.study.stragglers import draw, lengths, simulate, utilisation
from tests.recorded import RECIPE, run_of, write_study

PATH = Written(("aaaa", "bbbbbb"), 0.0, 10, -0.25, True)  # steps of 4 and 6 tokens
BOTH = dict(policy_speed=100, prm_speed=50)


def studied(tmp_path: Path, scored: int = 48) -> tuple[Recipe, Path]:
    """Filters of 2 and 4 particles, which did not cost in proportion, and samples."""

    def make(cell: Cell) -> Sequence[Run]:
        if cell.label == "samples":
            return [run_of(cell.key, "a", [PATH] * 4, scored=999)]
        if cell.n == 2:
            return [run_of(cell.key, "a", [PATH] * 30, scored=7 * scored)]
        return [run_of(cell.key, id, [PATH] * 4, scored=scored) for id in ("a", "b")]

    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    recipe = Recipe.read(str(file))
    write_study(tmp_path / "out", recipe, make)
    return recipe, tmp_path / "out"


def test_hours_days_and_money_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    plan = scale(*studied(tmp_path), 1000, 8, gpus=4, price=3.0, **BOTH)
    # 40 tokens written and 48 judged by 4 particles; twice as many by 8.
    assert plan["method"] == "filter" and plan["recorded"]["n"] == 4
    assert (plan["tokens"]["written"], plan["tokens"]["judged"]) == (80, 96)
    hours = 1000 * (80 / 100 + 96 / 50) / 3600
    assert plan["gpu_hours"] == pytest.approx(hours)
    assert plan["days"] == pytest.approx(hours / 24 / 4)
    assert plan["money"] == pytest.approx(3 * hours)
    assert plan["time_share"]["prm"] == pytest.approx(1.92 / 2.72)
    assert plan["time_share"]["policy"] == pytest.approx(0.80 / 2.72)
    assert json.loads(json.dumps(plan)) == plan


def test_at_the_bottleneck_both_models_take_half(tmp_path: Path) -> None:
    study = studied(tmp_path)
    ratio = scale(*study, 10, 8, **BOTH)["bottleneck"]
    assert ratio == pytest.approx(96 / 80)
    at = scale(*study, 10, 8, policy_speed=100, prm_speed=100 * ratio)
    assert at["time_share"]["prm"] == pytest.approx(0.5)


def test_without_speeds_they_are_as_measured(tmp_path: Path) -> None:
    plan = scale(*studied(tmp_path), 1000, 8)
    assert plan["speed"]["policy"] == pytest.approx(40 / 2)  # both models in 2 seconds
    assert plan["gpu_hours"] == pytest.approx(1000 * 4 / 3600)
    assert plan["time_share"] is None and "not known" in as_text(plan)


def test_processes_that_shared_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = studied(tmp_path)
    ran = dict(machines=["NVIDIA H200"], parts=3)
    monkeypatch.setattr("pfref.study.scale.machines", lambda *_: ran)
    plan = scale(*study, 1000, 8)
    assert plan["of_a_process"] and plan["gpu_hours"] == pytest.approx(4000 / 3600)
    text = " ".join(as_text(plan).split())
    assert "1.1 hours of a process (if some shared a GPU, --sharing says" in text
    plan = scale(*study, 1000, 8, sharing=3)
    assert plan["gpu_hours"] == pytest.approx(4000 / 3 / 3600)
    assert plan["speed"]["policy"] == pytest.approx(3 * 40 / 2)
    assert "0.4 GPU hours" in as_text(plan) and "processes" not in as_text(plan)
    assert not scale(*study, 1000, 8, **BOTH)["of_a_process"]
    with pytest.raises(UserError, match="leave --policy-speed out"):
        scale(*study, 1000, 8, sharing=3, **BOTH)
    assert scale(*study, 1000, 8, price=2.0)["money"] is None  # whose hours?
    with pytest.raises(UserError, match="--sharing is a number above 0"):
        scale(*study, 1000, 8, sharing=0)


def test_only_the_machines_of_its_own_cells_count(tmp_path: Path) -> None:
    recipe, out = studied(tmp_path)
    study = read(out)
    (own,) = study.sessions
    other = dict(own["session"], environment=dict(gpu="another"), part=[1, 9])
    study.sessions.append(dict(session=other | dict(cells=[["key", "label"]])))
    keys = {key for key, _ in own["session"]["cells"]}
    assert machines(study, keys)["parts"] == 1
    assert machines(study, {"key"}) == dict(machines=["another"], parts=9)


def test_a_reward_model_without_a_pass_of_its_own(tmp_path: Path) -> None:
    study = studied(tmp_path, scored=0)
    plan = scale(*study, 1000, 8)
    assert plan["time_share"] == dict(policy=1, prm=0)
    assert "the policy's states" in as_text(plan)
    # Asked for, one reads the prompt of 5 tokens, and each written token once.
    plan = scale(*study, 1000, 8, prm_speed=50)
    assert plan["tokens"]["judged"] == 85
    assert plan["gpu_hours"] == pytest.approx(1000 * (4 + 85 / 50) / 3600)
    assert "none recorded" in as_text(plan)


def test_what_a_prefix_cache_saves(tmp_path: Path) -> None:
    cache = scale(*studied(tmp_path), 1, 8, **BOTH)["cache"]
    # A row reads 5, then 5 + 4 tokens before its steps; 9 and 15 up to their ends.
    assert cache["policy"] == dict(once=85, again=8 * 14 + 80)
    assert cache["prm"] == dict(once=96, again=8 * 24)


def test_steps_share_a_paths_tokens() -> None:
    rng = np.random.default_rng(0)
    run = run_of("k", "a", [PATH, replace_steps(("x" * 97, "", "y"), 7)])
    assert [s.tolist() for s in lengths(run, True, rng)] == [[4, 6], [7, 1, 1]]


def replace_steps(steps: tuple[str, ...], tokens: int) -> Written:
    return PATH._replace(steps=steps, tokens=tokens)


def test_steps_without_texts_share_the_turns() -> None:
    paths = [replace_steps(("\\boxed{1}",), tokens) for tokens in (1000, 400)]
    run = replace(run_of("k", "a", paths), ancestors=[None] * 5)
    found = lengths(run, False, np.random.default_rng(0))
    assert [len(steps) for steps in found] == [5, 2]
    assert [steps.sum() for steps in found] == [1000, 400]
    # As uneven as is said: the gamma's own deviation, but that they have a fixed sum.
    many = [replace_steps(("",), 100_000)] * 300
    run = replace(run_of("k", "a", many), ancestors=[None] * 20)
    spread = np.array(lengths(run, False, np.random.default_rng(0)))
    cv = (spread.std(axis=1) / spread.mean(axis=1)).mean()
    assert cv == pytest.approx((19 / 41) ** 0.5, abs=0.04)


def test_rows_that_have_ended_write_no_more() -> None:
    population = [np.array([3]), np.array([2, 5])]
    turns = draw([population], 64, np.random.default_rng(0))
    assert len(turns) == 2 and len(turns[0]) == 64 and 0 < len(turns[1]) < 64
    assert set(turns[0].tolist()) == {2, 3} and set(turns[1].tolist()) == {5}


def test_one_problem_in_flight_waits_for_the_largest_of_its_lengths() -> None:
    n, p, rng = 8, 0.1, np.random.default_rng(1)
    work = [[rng.geometric(p, n)] for _ in range(4000)]
    largest = sum(1 - (1 - (1 - p) ** t) ** n for t in range(1000))
    assert simulate(work, 1, n) == pytest.approx(1 / p / largest, rel=0.02)
    # With many in flight a free slot always finds a row.
    assert simulate(work, 64, n) > 0.999


def test_a_server_worked_out_by_hand() -> None:
    turns = [[np.array([1, 3]), np.array([2, 2])]] * 30
    assert simulate(turns, 1, 2) == pytest.approx(8 / 10)
    assert simulate(turns, 1, 4) == pytest.approx(8 / 20)  # two never have a row
    # One slot writes 1, 3, 2, 2 after one another.
    assert simulate(turns, 1, 1) == 1
    # Of two slots, two problems leave none idle, though each waits for its own rows.
    assert simulate([[np.array([1, 3])]] * 400, 2, 2) > 8 / 10
    # In the order of waiting: 3 1 1, then 3 1 of the second problem in the freed two,
    # its last 1 after that, and when both first threes end there are rows again.
    assert simulate([[np.array([3, 1, 1])]] * 60, 2, 3) == 1
    # What was before the first problem has ended does not count.
    assert simulate([[np.array([100, 1])]] + [[np.array([2, 2])]] * 30, 1, 2) == 1
    with pytest.raises(ValueError, match="too few"):
        simulate(turns, 15, 2)


def test_utilisation_rises_to_one() -> None:
    rng = np.random.default_rng(2)
    recorded = [[rng.geometric(0.1, 4) for _ in range(8)] for _ in range(20)]
    rows = utilisation(recorded, 4, 8, rng)
    assert [row["in_flight"] for row in rows] == [1, 2, 4, 8, 16]
    busy = [row["at_work"] for row in rows]
    assert busy == sorted(busy) and busy[0] < 0.4 and busy[-1] > 0.98


@pytest.mark.parametrize(
    "changed, told",
    [
        (dict(problems=0), "--problems is a number above 0"),
        (dict(problems=1.5), "--problems is a whole number"),
        (dict(problems=float("inf")), "--problems is a number above 0"),
        (dict(particles=0), "--particles is"),
        (dict(gpus=-1), "--gpus is"),
        (dict(price=float("nan")), "--price is"),
        (dict(slots=0), "--slots is"),
        (dict(prm_speed=None), "both --policy-speed and --prm-speed"),
    ],
)
def test_bad_numbers(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = dict(problems=10, particles=8, **BOTH) | changed
    with pytest.raises(UserError, match=told) as error:
        scale(*studied(tmp_path), **given)
    assert "\n" not in str(error.value)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = studied(tmp_path)
    run = ["run", str(tmp_path / "recipe.toml"), "--out", str(out)]
    plan = ["--estimate", "--problems", "1e6", "--particles", "8", "--gpus", "2"]
    main([*run, *plan])
    text = capsys.readouterr().out
    assert text.startswith("1,000,000 problems x 8 particles")
    assert "1,111.1 GPU hours" in text and max(map(len, text.splitlines())) <= 100
    main([*run, *plan, "--json"])
    assert json.loads(capsys.readouterr().out)["problems"] == 10**6
    for flags, told in [
        (["--problems", "10"], "--problems goes with --estimate"),
        (["--estimate", "--gpus", "2"], "--gpus goes with --estimate --problems"),
        (["--json"], "--json goes with --estimate --problems"),
        (plan + ["--out", str(tmp_path)], "holds no records"),
    ]:
        assert main([*run, *flags]) == 2
        assert told in capsys.readouterr().err


def test_records_of_other_methods(tmp_path: Path) -> None:
    _, out = studied(tmp_path)
    other = tmp_path / "other.toml"
    other.write_text(RECIPE.replace('label = "', 'label = "another '))
    with pytest.raises(UserError, match="of this recipe's methods"):
        scale(Recipe.read(str(other)), out, 10)
