"""Verdicts without texts: what they say of a study is what its report says."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from pfref.errors import UserError
from pfref.minimath.problems import load_set
from pfref.study.grades import grade
from pfref.study.recipe import Cell, Recipe
from pfref.study.records import Run, Written
from pfref.study.verdicts import FILE, Samples, main, ranking
from tests.recorded import RECIPE, path_of, run_of, write_study

PROBLEMS = load_set("minimath500")[:3]
WORDS = ("R5R5", "RRR6", "7777"), ("R5R5", "RR66", "7R77")  # R: the right answer


def paths_of(k: int, seed: int) -> list[Written]:
    right = PROBLEMS[k].answer
    found = [
        path_of(right if word == "R" else word, reward, 10 + reward)
        for reward, word in enumerate(WORDS[seed][k])
    ]
    if k == 0:
        found[-1] = found[-1]._replace(finished=False)
    return found


def made_up(cell: Cell) -> list[Run]:
    found = []
    for k, problem in enumerate(PROBLEMS):
        if cell.label == "samples":
            weights = np.array([1.0, 2.0, 3.0, 4.0])
            own = paths_of(k, cell.settings.seed)
            weights[[not path.finished for path in own]] = 0.0
            found.append(run_of(cell.key, problem.id, own, list(weights)))
        else:
            answer = problem.answer if k == cell.settings.seed else "8"
            found.append(run_of(cell.key, problem.id, [path_of(answer)] * cell.n))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r.toml").write_text(RECIPE)
    write_study(tmp_path, Recipe.read(str(tmp_path / "r.toml")), made_up)
    assert main([str(tmp_path), "minimath500"]) == 0
    return tmp_path


def test_choices_are_those_of_the_report(folder: Path) -> None:
    own, rows = Samples(folder, 4), grade(folder, data="minimath500").rows
    for n in (1, 2, 4):
        for name, won in own.chosen(n).items():
            if (name, n) in rows:
                assert np.allclose(won, rows[name, n].correct[0]), (name, n)
    assert own.good.tolist() == [[1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert own.ended.sum() == 11 and own.exact == 5
    assert own.levels.tolist() == [1, 2, 3]


def test_rows_of_every_budget_and_seed(folder: Path) -> None:
    rows = Samples(folder, 4).rows
    assert rows["filter"].tolist() == rows["filter, N = 2"].tolist() == [1, 0, 0]
    assert rows["filter, seed 1"].tolist() == [0, 1, 0]
    assert rows["majority"].tolist() == [1, 1, 0]
    record = json.loads((folder / "right.json").read_text())
    assert record["grader"] == "plain numbers" and record["problems"] == 3


def test_weights_by_the_odds_choose_by_them(folder: Path) -> None:
    """3 of 6 weigh for R in the first problem, without the sample that was cut off."""
    own = Samples(folder, 4)
    assert np.isneginf(own.log_w[0, 3]) and np.isneginf(own.log_r[0, 3])
    assert own.chosen(4)["weighted by odds"].tolist() == [1, 1, 0]
    assert own.chosen(2)["weighted by odds"].tolist() == [0.5, 0.5, 0]


def test_a_part_has_the_same_samples(folder: Path) -> None:
    whole = Samples(folder, 4)
    names = sorted(whole.study.lines)
    part = whole.part([names[2], names[0]])
    assert part.good.tolist() == whole.good[[0, 2]].tolist() and part.rows == {}
    assert len(part.levels) == 2 and len(whole.good) == 3


def test_ranking_by_hand() -> None:
    source = np.random.default_rng(1)
    x, good = source.integers(0, 4, (6, 5)) * 1.0, source.random((6, 5)) < 0.4
    for among in (np.ones_like(good), source.random((6, 5)) < 0.7):
        won = pairs = 0.0
        for p, i, j in itertools.product(range(6), range(5), range(5)):
            if good[p, i] and not good[p, j] and among[p, i] and among[p, j]:
                pairs += 1
                won += (x[p, i] > x[p, j]) + (x[p, i] == x[p, j]) / 2
        mean, low, high = ranking(x, good, among)
        assert mean == pytest.approx(won / pairs) and low <= mean <= high
    assert ranking(x, good) == ranking(x, good, np.ones_like(good))


def test_mistakes_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no samples with N = 8"):
        Samples(folder, 8)
    assert main([str(folder), "miniaime"]) == 2
    assert main([str(folder / "nowhere"), "minimath500"]) == 2
    assert capsys.readouterr().err.count("was not written: ") == 2
    (folder / FILE).unlink()
    with pytest.raises(UserError, match="verdicts"):
        Samples(folder, 4)
