"""Recorded samples, judged by another reward model: as if it had been there when they
were written.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pfref import RewardModel, pair
from pfref.__main__ import main
from pfref.minimath.problems import load_set
from pfref.study.archive import pack
from pfref.study.recipe import Recipe
from pfref.study.records import Run, encode
from pfref.study.replay import Replay
from tests.recorded import RECIPE, assert_same, runs_of

LIMITS = "temperature = 1.3\nmax_tokens = 50"  # cuts some samples, not all
OTHERS = {
    "the same": "",
    "noisy": "prm_noise = 1.0\n",
    "telescoping": 'potential = "telescoping"\ntau = 2.0\n',
    "lowest": 'aggregation = "min"\nwidth = 8\n',
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


def written(place: Path) -> list[Run]:
    """But for the problem that the policy could not read."""
    return [run for run in runs_of(place / "own") if run.paths]


def replayed(place: Path, name: str, file: str, *more: str) -> list[Run]:
    common = ["run", file, "--quiet", "--replay", str(place / "own"), *more]
    assert main([*common, "--out", str(place / name)]) == 0
    return runs_of(place / name)


@pytest.mark.parametrize("name", OTHERS)
def test_as_if_it_had_been_there(place, name) -> None:
    """Rewards, weights, evidence, choice and counts are those of a run in which this
    reward model judged the samples while they were written. The problem that could not
    be run is not solved here either.
    """
    file = with_options(recipe(place), OTHERS[name])
    assert main(["run", file, "--quiet", "--out", str(place / f"run {name}")]) == 0
    there = runs_of(place / f"run {name}")
    assert_same(replayed(place, name, file), there)
    there = [run for run in there if run.paths]
    evidence = [run.log_evidence for run in written(place)]
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
    assert len(told) == 2 and "filter" in told[0] and "lacks 4 of 6" in told[1]
    assert_same(runs_of(place / "some"), runs_of(part))


def test_mistakes_are_one_line(place, capsys) -> None:
    file, own = recipe(place), ["--replay", str(place / "own")]
    pack(place / "own", place / "answers.jsonl.xz", answers=True)
    (place / "bare").mkdir(exist_ok=True)
    (place / "answers.jsonl.xz").rename(place / "bare/records.jsonl.xz")
    for arguments, message in (
        ([file, *own, "--prm", "qwen2.5-coder-0.5b-probe"], "reads the states"),
        ([file, *own, "--seeds", "1"], "differ in seed"),
        ([file, *own, "--budgets", "2"], "differ in particles"),
        ([file, *own, "--model", "minimath-large"], "differ in model"),
        ([recipe(place, **{"1.3": "1.2"}), *own], "differ in temperature"),
        ([recipe(place, "filter"), *own], "no method `samples`"),
        ([file, "--replay", str(place / "bare")], "pack --answers"),
        ([file, "--replay", str(place / "nowhere")], "there are no records in"),
        ([with_options(recipe(place), "target_temperature = 0.7"), *own], "target"),
        ([with_options(recipe(place), "step_tokens = 1"), *own], "without a word"),
        ([with_options(recipe(place), 'finished = "reweighted"'), *own], "a word"),
        ([with_options(recipe(place), 'choose = "draw"'), *own], "random numbers"),
        ([file, *own, "--ray"], "leave --ray out"),
        ([file, *own, "--estimate"], "leave --estimate out"),
        ([file, *own, "--estimate", "--problems", "9"], "leave --estimate out"),
    ):
        capsys.readouterr()
        assert main(["run", *arguments, "--out", str(place / "wrong")]) == 2, message
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line, line
    assert not (place / "wrong").exists()
    capsys.readouterr()
    assert main(["run", file, *own, "--out", str(place / "own")]) == 2
    assert "needs another --out" in capsys.readouterr().err


def test_records_of_several_kinds_in_one_folder(place, tmp_path, capsys) -> None:
    """An option that came later does not count; another model's failure, or answers
    without solutions, do not hide samples; greedy solutions have no seed.
    """
    lines = (place / "own/records.jsonl").read_text().splitlines()
    for k, line in enumerate(map(json.loads, lines)):
        if "cell" in line:
            del line["settings"]["proposal"]["target_power"]
            lines[k] = json.dumps(line)
    cell = next(line for line in map(json.loads, lines) if "cell" in line)
    other = cell | dict(cell="other", models=cell["models"] | dict(prm="other"))
    (run,) = [r for r in written(place) if r.id == "data/0001"]
    bare = [path._replace(steps=(r"\boxed{5}",)) for path in run.paths]
    hidden = [
        replace(run, key="other", paths=[], failed="too long"),
        replace(run, key="other", id="data/0003", paths=bare, text=None),
    ]
    lines = [json.dumps(other), *lines, *(encode([run]) for run in hidden)]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + "\n")
    common = ["--quiet", "--replay", str(tmp_path), "--out", str(place / "kinds")]
    assert main(["run", recipe(place), *common]) == 0
    assert_same(runs_of(place / "kinds"), runs_of(place / "own"))
    greedy = [recipe(place, "greedy"), "--quiet", "--limit", "2"]
    assert main(["run", *greedy, "--out", str(place / "g")]) == 0
    again = ["--seeds", "5", "--replay", str(place / "g")]
    assert main(["run", *greedy, *again, "--out", str(place / "g5")]) == 0
    assert [r.paths for r in runs_of(place / "g5")] == [
        r.paths for r in runs_of(place / "g")
    ]
    capsys.readouterr()
    assert main(["report", str(place / "g5"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["seconds"] is None  # the policy's are not known
