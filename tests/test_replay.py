"""Recorded samples, judged by another reward model: as if it had been there when they
were written.
"""

import json
from pathlib import Path

import pytest

from pfref import RewardModel, pair
from pfref.__main__ import main
from pfref.minimath.problems import load_set
from pfref.study.recipe import Recipe
from pfref.study.records import Run, pack
from pfref.study.replay import Replay
from tests.recorded import RECIPE, assert_same, runs_of

LIMITS = "temperature = 1.3\nmax_tokens = 50"  # cuts some samples, not all
OTHERS = {
    "the same": "",
    "noisy": "prm_noise = 1.0\n",
    "telescoping": 'potential = "telescoping"\ntau = 2.0\n',
    "reweighted, lowest": 'finished = "reweighted"\naggregation = "min"\n',
}


def recipe(folder: Path, method: str = "samples", **changes: str) -> str:
    """A recipe with one method, in `folder`, beside its six problems: two texts alike,
    one that cannot be read.
    """
    problems = load_set("minimath500")
    texts = [problems[k] for k in (0, 1, 0, 3, 7)]
    rows = [dict(problem=p.problem, answer=p.answer) for p in texts]
    rows += [dict(problem="What is blue?", answer="5")]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = RECIPE.partition("[[method]]")[0].replace("minimath500", "data.jsonl")
    head = head.replace("[2, 4]", "[6]").replace("[0, 1]", "[0]")
    head = head.replace("temperature = 0.8", LIMITS)
    for old, new in changes.items():
        head = head.replace(old, new)
    file = folder / f"{len(list(folder.glob('*.toml')))}.toml"
    file.write_text(head + f'[[method]]\nmethod = "{method}"\n')
    return str(file)


def with_options(file: str, options: str) -> str:
    Path(file).write_text(Path(file).read_text() + options)
    return file


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded samples, in `place`/own."""
    place = tmp_path_factory.mktemp("replay")
    arguments = ["run", recipe(place), "--quiet", "--out", str(place / "own")]
    assert main(arguments) == 0
    runs = runs_of(place / "own")
    ends = {path.finished for run in runs for path in run.paths}
    assert ends == {True, False} and sum(run.failed is not None for run in runs) == 1
    assert max(len(path.steps) for run in runs for path in run.paths) > 3
    return place


def replayed(place: Path, name: str, file: str, *more: str) -> list[Run]:
    common = ["run", file, "--quiet", "--replay", str(place / "own"), *more]
    assert main([*common, "--out", str(place / name)]) == 0
    return runs_of(place / name)


@pytest.mark.parametrize("name", OTHERS)
def test_as_if_it_had_been_there(place, name) -> None:
    """Rewards, weights, evidence, choice and counts are those of a run in which this
    reward model judged the samples while they were written.
    """
    file = with_options(recipe(place), OTHERS[name])
    assert main(["run", file, "--quiet", "--out", str(place / f"run {name}")]) == 0
    there = runs_of(place / f"run {name}")
    assert_same(replayed(place, name, file), there)
    evidence = [run.log_evidence for run in runs_of(place / "own")]
    changed = [run.log_evidence for run in there] != pytest.approx(evidence, abs=0.01)
    assert changed == (name != "the same")


def test_the_policy_is_not_asked(place, monkeypatch) -> None:
    """It is loaded only to judge itself, and writes nothing."""
    monkeypatch.setattr(pair, "policy", lambda _: pytest.fail("loaded"))
    assert len(replayed(place, "alone", recipe(place), "--limit", "2")) == 2
    monkeypatch.setattr(pair, "policy", lambda _: "the policy")
    monkeypatch.setattr(RewardModel, "judging", lambda lm: f"{lm}'s word")
    (cell,) = Recipe.read(recipe(place), prm="self").cells
    replay = Replay(place / "own")
    assert pair.load_models(cell.models, replay) == (replay, "the policy's word")


def test_what_is_not_recorded_is_told(place, capsys) -> None:
    """Methods that scores steer, and problems that were not run."""
    file = with_options(recipe(place), '[[method]]\nmethod = "filter"\n')
    part = place / "part"
    assert (
        main(["run", recipe(place), "--quiet", "--limit", "2", "--out", str(part)]) == 0
    )
    capsys.readouterr()
    arguments = ["run", file, "--quiet", "--replay", str(part)]
    assert main([*arguments, "--out", str(place / "some")]) == 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "filter" in told[0] and "4 problems" in told[1]
    assert_same(runs_of(place / "some"), runs_of(part))


def test_mistakes_are_one_line(place, capsys) -> None:
    file, own = recipe(place), ["--replay", str(place / "own")]
    pack(place / "own", place / "answers.jsonl.xz", answers=True)
    (place / "bare").mkdir(exist_ok=True)
    (place / "answers.jsonl.xz").rename(place / "bare/records.jsonl.xz")
    for arguments, message in (
        ([file, *own, "--prm", "qwen2.5-coder-0.5b-probe"], "reads the states"),
        ([file, *own, "--seeds", "1"], "holds no samples"),
        ([file, *own, "--budgets", "2"], "holds no samples"),
        ([file, *own, "--model", "minimath-large"], "holds no samples"),
        ([recipe(place, **{"1.3": "1.2"}), *own], "holds no samples"),
        ([recipe(place, "filter"), *own], "no method `samples`"),
        ([file, "--replay", str(place / "bare")], "pack --answers"),
        ([file, "--replay", str(place / "nowhere")], "holds no samples"),
        ([file, *own, "--ray"], "leave --ray out"),
        ([file, *own, "--estimate"], "leave --estimate out"),
    ):
        capsys.readouterr()
        assert main(["run", *arguments, "--out", str(place / "wrong")]) == 2, message
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line, line
    assert not (place / "wrong").exists()
