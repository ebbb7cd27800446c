"""Reports: figures computed by hand from a small set of records."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pfref import UserError
from pfref.__main__ import main
from pfref.minimath.problems import load_set
from pfref.study.archive import pack
from pfref.study.curves import curves
from pfref.study.grades import grade
from pfref.study.recipe import Cell, Recipe
from pfref.study.records import Run, Written
from pfref.study.report import report_on
from pfref.study.tables import as_text
from tests.recorded import RECIPE, path_of, run_of, write_study

PROBLEMS = load_set("minimath500")[:3]  # levels 1, 2, 3
BAR = """
[[method]]
label = "large"
method = "greedy"
bar = true
"""


def samples_of(k: int, seed: int) -> list[Written]:
    """Four samples of problem k: R for the right answer."""
    right = PROBLEMS[k].answer
    words = (("R5R5", "RRR6", "7777"), ("R5R5", "RR66", "7R77"))[seed][k]
    return [
        path_of(right if word == "R" else word, reward, 10)
        for reward, word in enumerate(words)
    ]


def made_up(cell: Cell) -> list[Run]:
    """Samples; filters of which N = 2 solves the second problem and N = 4 the first two
    with seed 0 and all with seed 1; a large model that solves the second.
    """
    found = []
    for k, problem in enumerate(PROBLEMS):
        seed, answer = cell.settings.seed, problem.answer
        if cell.label == "samples":
            found.append(run_of(cell.key, problem.id, samples_of(k, seed), scored=45))
            continue
        if cell.label == "large":
            solved = k == 1
        else:
            solved = k == 1 if cell.n == 2 else k < 2 + seed
        paths = [
            path_of("9", 5.0),
            *[path_of(answer if solved else "8")] * (cell.n - 1),
        ]
        weights = [0.4, *[0.6 / max(1, cell.n - 1)] * (cell.n - 1)]
        if cell.n == 1:
            paths = [path_of(answer if solved else "8")]
        found.append(
            run_of(cell.key, problem.id, paths, weights[: len(paths)], 10 * len(paths))
        )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    (place / "r.toml").write_text(RECIPE + BAR)
    write_study(place, Recipe.read(str(place / "r.toml")), made_up)
    return place


def row(report: dict, method: str, n: int) -> dict:
    (found,) = [r for r in report["rows"] if (r["method"], r["n"]) == (method, n)]
    return found


def test_accuracies_by_hand(folder) -> None:
    """The mean over blocks, seeds and problems."""
    report = report_on(folder)
    assert report["problems"] == 3 and report["seeds"] == [0, 1]
    expected: dict[tuple[str, int], list[float]] = {  # of each problem
        ("majority", 1): [(2 + 2) / 8, (3 + 2) / 8, (0 + 1) / 8],
        ("majority", 2): [1, (2 + 1) / 4, 1 / 4 * 0],
        ("majority", 4): [1, 1, 0],
        ("best-of-N", 2): [0, (1 + 1) / 4, 1 / 4],
        ("best-of-N", 4): [0, 0, 0],
        ("weighted best-of-N", 4): [0, 1 / 2, 0],
        ("early-stopped vote", 4): [1, 1, 0],
        ("pass@N (oracle)", 1): [1 / 2, 5 / 8, 1 / 8],
        ("pass@N (oracle)", 2): [5 / 6, (1 + 5 / 6) / 2, 1 / 4],
        ("pass@N (oracle)", 4): [1, 1, 1 / 2],
        ("filter", 2): [0, 1, 0],
        ("filter", 4): [1, 1, 1 / 2],
        ("large", 1): [0, 1, 0],
    }
    for (method, n), values in expected.items():
        found = row(report, method, n)
        assert list(found["levels"].values()) == pytest.approx(values), (method, n)
        assert found["accuracy"] == pytest.approx(sum(values) / 3)
        assert found["low"] <= found["accuracy"] <= found["high"]
        assert found["problems"] == 3 and found["seeds"] == 1 + (method != "large")


def test_tokens_by_hand(folder) -> None:
    """Scored tokens count where a reward model is asked; of fewer samples, their share
    beside the prompt, 5 tokens.
    """
    report = report_on(folder)
    cost = {("majority", 2): 20, ("majority", 4): 40, ("best-of-N", 2): 45}
    cost |= {("best-of-N", 4): 85, ("filter", 4): 80, ("filter", 2): 40}
    cost |= {("large", 1): 10, ("pass@N (oracle)", 2): 20}
    for (method, n), tokens in cost.items():
        assert row(report, method, n)["tokens"] == pytest.approx(tokens)
    assert row(report, "filter", 2)["seconds"] == 2.0
    assert row(report, "majority", 2)["seconds"] is None  # nobody ran it


def test_a_probe_costs_no_tokens(tmp_path: Path) -> None:
    """Of fewer samples too: what is scored is nothing, and the prompt is not added."""

    def probed(cell: Cell) -> list[Run]:
        return [replace(run, counts=(*run.counts[:2], 0)) for run in made_up(cell)]

    (tmp_path / "r.toml").write_text(RECIPE)
    write_study(tmp_path, Recipe.read(str(tmp_path / "r.toml")), probed)
    report = report_on(tmp_path)
    for n in (1, 2, 4):
        assert row(report, "best-of-N", n)["tokens"] == pytest.approx(10 * n)


def test_a_reward_model_with_a_prompt_of_its_own(tmp_path: Path) -> None:
    """Of 42 scored tokens its prompt has 2; the policy's has 5."""

    def own(cell: Cell) -> list[Run]:
        return [replace(run, counts=(5, 40, 42, 2)) for run in made_up(cell)]

    (tmp_path / "r.toml").write_text(RECIPE)
    write_study(tmp_path, Recipe.read(str(tmp_path / "r.toml")), own)
    report = report_on(tmp_path)
    for n in (1, 2, 4):
        assert row(report, "best-of-N", n)["tokens"] == pytest.approx(20 * n + 2)


def test_methods_that_share_no_problem(tmp_path: Path, capsys) -> None:
    """Nothing is said of their difference, and JSON has no NaN."""

    def parted(cell: Cell) -> list[Run]:
        found = made_up(cell)
        return found[:1] if cell.label == "samples" else found[1:]

    (tmp_path / "r.toml").write_text(RECIPE)
    write_study(tmp_path, Recipe.read(str(tmp_path / "r.toml")), parted)
    assert main(["report", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert report["differences"] == [] and len(report["rows"]) > 5


def test_equal_tokens_are_those_of_the_shared_problems(tmp_path: Path) -> None:
    """The filter's second problem is dear, and the samples were not run on it."""

    def parted(cell: Cell) -> list[Run]:
        found = made_up(cell)
        if cell.label == "samples":
            return found[:1]
        dear = replace(found[1], counts=(5, 10**6, 0))
        return [replace(found[0], counts=(5, 20, 25)), dear]

    (tmp_path / "r.toml").write_text(RECIPE)
    write_study(tmp_path, Recipe.read(str(tmp_path / "r.toml")), parted)
    found = [d for d in report_on(tmp_path)["differences"] if d["at"] == "tokens"]
    best = [d for d in found if d["rival"] == "best-of-N"]
    # 45 tokens are those of best-of-2, which is right half the time on problem 1.
    assert {d["n"] for d in best} == {2, 4}
    here = row(report_on(tmp_path), "best-of-N", 2)
    assert here["tokens"] == 45
    mine = {d["n"]: d["mean"] for d in best}
    solved = {2: 0.0, 4: 1.0}  # the first problem by the filter
    assert mine == {n: pytest.approx(solved[n] - here["accuracy"]) for n in solved}


def test_differences_by_hand(folder) -> None:
    report = report_on(folder)
    found = {(d["rival"], d["n"], d["at"]): d for d in report["differences"]}
    paired = np.array([1, 1, 0.5]) - np.array([1, 1, 0])
    at_n = found["majority", 4, "n"]
    assert at_n["mean"] == pytest.approx(paired.mean())
    # of 27 equally likely resamples 8 are zeros only, and one is the third only
    assert (at_n["low"], at_n["high"]) == pytest.approx((0, 0.5))
    # 80 tokens lie between best-of-2's 45 and best-of-4's 85
    share = math.log(80 / 45) / math.log(85 / 45)
    rival = (1 - share) * np.array([0, 0.5, 0.25]) + share * np.zeros(3)
    at_tokens = found["best-of-N", 4, "tokens"]
    assert at_tokens["mean"] == pytest.approx((np.array([1, 1, 0.5]) - rival).mean())
    assert ("majority", 4, "tokens") not in found  # 80 is more than it ever took
    assert not any(
        "oracle" in d["rival"] or d["rival"] == "large" for d in found.values()
    )


def test_the_bar_and_the_rates(folder) -> None:
    report = report_on(folder)
    (bar,) = report["bar"]
    passes = {p["method"]: p["n"] for p in bar["passes"]}
    assert bar["accuracy"] == pytest.approx(1 / 3)
    assert passes == {
        "majority": 1,  # 10/24
        "best-of-N": 1,
        "weighted best-of-N": 1,
        "confidence vote": 1,
        "early-stopped vote": 1,
        "filter": 4,
    }
    rates = {(r["rival"], r["n"], r["by"]): r for r in report["rates"]}
    # majority has 10/24, 14/24, 16/24: above the filter's 1/3 from its first budget
    assert rates["majority", 2, "n"]["rate"] == 0
    assert rates["majority", 2, "n"]["least"] == 1 / 2
    assert rates["majority", 4, "n"]["rate"] is None  # it never reaches 5/6
    assert rates["majority", 4, "n"]["most"] == 1
    text = as_text(report)
    assert "<0.5" in text and ">1" in text and "large, the bar" in text
    assert "\nanswers compared by plain numbers\n" in text


def test_answers_are_graded_from_texts(folder, tmp_path) -> None:
    """Whatever a run chose or thought right: another weight makes another answer, and
    no line holds a verdict.
    """
    text = (folder / "records.jsonl").read_text()
    assert "correct" not in text and "answer" not in text
    assert PROBLEMS[0].problem not in text
    (tmp_path / "records.jsonl").write_text(text.replace("[0.4,", "[0.9,"))
    assert row(report_on(tmp_path), "filter", 4)["accuracy"] == 0
    argmax = row(report_on(folder, choices=["argmax"]), "filter (argmax)", 4)
    assert argmax["accuracy"] == 0  # "9" has the highest reward


def test_packed_records_give_the_same_report(folder, tmp_path) -> None:
    pack(folder, tmp_path / "records.jsonl.xz")
    assert report_on(tmp_path) == report_on(folder)


def test_a_study_that_has_only_begun(folder, tmp_path) -> None:
    """Half of the records: rows say how many problems they rest on."""
    lines = (folder / "records.jsonl").read_text().splitlines()
    kept = [x for x in lines if PROBLEMS[0].id not in x or '"cell"' in x[:9]]
    (tmp_path / "records.jsonl").write_text("\n".join(kept[:-4]) + "\n")
    report = report_on(tmp_path)
    assert report["problems"] == 2
    assert as_text(report) and json.loads(json.dumps(report)) == report


def test_command_and_figures(folder, tmp_path, capsys) -> None:
    assert main(["report", str(folder), "--plot", str(tmp_path / "new")]) == 0
    assert "filter minus each, in points, at equal N" in capsys.readouterr().out
    for name in ("n", "tokens"):
        assert (tmp_path / f"new/accuracy-by-{name}.svg").stat().st_size > 1000
    assert main(["report", str(folder), "--reference", "nosuch"]) == 2
    assert "no method 'nosuch'" in capsys.readouterr().err
    assert main(["report", str(folder), "--choices", "vote,best"]) == 2
    assert "no choice 'best'" in capsys.readouterr().err
    assert main(["report", str(folder), "--data", "miniaime"]) == 2
    assert "not of the problems of miniaime" in capsys.readouterr().err


def test_every_line_has_a_colour_and_marker_of_its_own(folder) -> None:
    axes = curves(report_on(folder), "tokens")
    drawn = [line for line in axes.get_lines() if len(set(line.get_xdata())) > 1]
    looks = {(line.get_color(), line.get_marker()) for line in drawn}
    assert len(looks) == len(drawn) > 3
    with pytest.raises(UserError, match="no method 'nosuch'"):
        curves(report_on(folder), methods=["nosuch"])


def test_records_of_old_settings_are_not_reported(folder, tmp_path) -> None:
    shutil.copy(folder / "records.jsonl", tmp_path / "records-1.jsonl")
    (tmp_path / "r.toml").write_text(RECIPE.replace("0.8", "0.5"))
    write_study(
        tmp_path / "new",
        Recipe.read(str(tmp_path / "r.toml")),
        lambda cell: made_up(cell) if cell.label == "samples" else [],
    )
    fresh = (tmp_path / "new/records.jsonl").read_text()
    later = fresh.replace('"time": "2', '"time": "9')
    (tmp_path / "records-2.jsonl").write_text(later)
    grades = grade(tmp_path)
    assert "filter" not in grades.methods and "majority" in grades.methods
