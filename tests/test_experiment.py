"""Runs of recipes: what is recorded, that a run goes on after anything that stopped it,
and one clear line for each mistake.
"""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pfref import UserError
from pfref.__main__ import main
from pfref.minimath.problems import load_set
from pfref.study import experiment
from pfref.study.archive import pack
from pfref.study.experiment import run
from pfref.study.recipe import Recipe
from pfref.study.records import Run, read
from tests.recorded import RECIPE, assert_same, pretend, runs_of, without_models

ROOT = Path(__file__).parents[1]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose runs need no models."""

    class Readable:
        def prompt(self, *_: object) -> list[int]:
            return [0]

    without_models(monkeypatch, Readable())
    (tmp_path / "r.toml").write_text(RECIPE)
    return tmp_path / "r.toml"


def ran(folder: Path, recipe: Path) -> list[Run]:
    """What is recorded when five problems are run."""
    run(Recipe.read(str(recipe), limit=5), folder)
    return runs_of(folder)


def same(a: list[Run], b: list[Run]) -> bool:
    """Pretended runs know no last digits."""
    return list(map(untimed, a)) == list(map(untimed, b))


def untimed(run: Run) -> Run:
    return replace(run, batch=(0, 0, 0, 0.0))


def test_a_run_that_was_cut_anywhere_goes_on(recipe, tmp_path, capsys) -> None:
    whole = ran(tmp_path / "whole", recipe)
    assert len(whole) == 5 * (1 + 2) * 2  # samples at the largest budget only
    data = (tmp_path / "whole/records.jsonl").read_bytes()
    source = random.Random(0)
    for cut in [0, 1, len(data) - 1, *source.choices(range(len(data)), k=10)]:
        (tmp_path / "cut").mkdir()
        (tmp_path / "cut/records.jsonl").write_bytes(data[:cut])
        capsys.readouterr()
        assert same(ran(tmp_path / "cut", recipe), whole)
        told = "was cut short" in capsys.readouterr().err
        assert told == (cut > 0 and data[cut - 1 : cut] != b"\n")
        assert b"}{" not in (tmp_path / "cut/records.jsonl").read_bytes()
        shutil.rmtree(tmp_path / "cut")


def test_what_is_recorded_is_not_run_again(recipe, tmp_path, monkeypatch) -> None:
    asked = Recipe.read(str(recipe), limit=5)
    assert run(asked, tmp_path / "a") == 30 and run(asked, tmp_path / "a") == 0
    text = (tmp_path / "a/records.jsonl").read_text()
    seen: list[str] = []

    def solve_cell(cell: Any, items: Any, *rest: Any) -> None:
        seen.extend(item.id for item in items)
        pretend(cell, items, *rest)

    monkeypatch.setattr(experiment, "solve_cell", solve_cell)
    assert run(Recipe.read(str(recipe), limit=6), tmp_path / "a") == 6
    assert (tmp_path / "a/records.jsonl").read_text().startswith(text)
    assert set(seen) == {"minimath500/005"} and len(seen) == 6


def test_what_is_told_of_a_cell_may_change(recipe, tmp_path) -> None:
    """How an answer is chosen is no part of its key; nor are lost headers the end."""
    ran(tmp_path / "a", recipe)
    file = tmp_path / "a/records.jsonl"
    recipe.write_text(recipe.read_text() + 'choose = "argmax"\n')
    for lost in (False, True):
        if lost:
            lines = file.read_text().splitlines(keepends=True)
            file.write_text("".join(x for x in lines if not x.startswith('{"cell"')))
            with pytest.raises(UserError, match="what they are of is lost"):
                pack(tmp_path / "a", tmp_path / "a/records.jsonl.xz")
        assert run(Recipe.read(str(recipe), limit=5), tmp_path / "a") == 0
        cells = read(tmp_path / "a").current()
        assert cells["filter", 4, 0]["settings"]["choose"] == "argmax"


def test_records_are_not_packed_over_others(recipe, tmp_path) -> None:
    ran(tmp_path / "a", recipe)
    for name in ("records.jsonl", "study.xz"):
        with pytest.raises(UserError, match=r"ends in \.jsonl\.xz"):
            pack(tmp_path / "a", tmp_path / "a" / name)


def test_a_damaged_line_is_told_and_run_again(recipe, tmp_path, capsys) -> None:
    whole = ran(tmp_path / "a", recipe)
    file = tmp_path / "a/records.jsonl"
    good = file.read_text().splitlines()
    good[-3] = good[-3][:40] + "\0" + good[-3][41:]
    file.write_text("\n".join(good) + "\n")
    assert run(Recipe.read(str(recipe), limit=5), tmp_path / "a") == 1
    assert "1 damaged line" in capsys.readouterr().err
    study = read(tmp_path / "a")
    assert len(study.done) == len(whole) and study.damaged == 1


def test_changed_settings_are_another_key(recipe, tmp_path) -> None:
    ran(tmp_path / "a", recipe)
    old = {cell["cell"] for cell in read(tmp_path / "a").current().values()}
    text = recipe.read_text()
    recipe.write_text(text.replace("temperature = 0.8", "temperature = 0.7"))
    ran(tmp_path / "a", recipe)
    study = read(tmp_path / "a")
    new = {cell["cell"] for cell in study.current().values()}
    assert not old & new and len(study.done) == 60
    recipe.write_text(text)
    assert run(Recipe.read(str(recipe), limit=5), tmp_path / "a") == 0
    assert {c["cell"] for c in read(tmp_path / "a").current().values()} == old
    # what changes no particle changes no key
    recipe.write_text(text.replace("[[method]]\n", "[[method]]\nbatch = 7\n", 1))
    assert run(Recipe.read(str(recipe), limit=5), tmp_path / "a") == 0


def test_parts_share_the_problems(recipe, tmp_path) -> None:
    whole = ran(tmp_path / "whole", recipe)
    asked = Recipe.read(str(recipe), limit=5)
    assert run(asked, tmp_path / "a", (1, 2)) == 18
    assert run(asked, tmp_path / "a", (2, 2)) == 12
    assert same(runs_of(tmp_path / "a"), whole)
    assert run(asked, tmp_path / "a") == 0


def test_a_full_disk_loses_nothing(recipe, tmp_path, monkeypatch) -> None:
    whole = ran(tmp_path / "whole", recipe)
    real, room = os.pwrite, [6000]

    def write(handle: int, data: Any, offset: int) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(handle, data[: room[0]], offset)
        room[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(UserError, match="No space left on device; nothing recorded"):
        ran(tmp_path / "a", recipe)
    text = (tmp_path / "a/records.jsonl").read_text()
    assert text.endswith("\n") and 0 < len(runs_of(tmp_path / "a")) < len(whole)
    room[0] = 1 << 30
    assert same(ran(tmp_path / "a", recipe), whole)


def test_a_place_that_cannot_be_written(recipe, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*: Not a directory"):
        ran(tmp_path / "file" / "a", recipe)


def test_records_and_packed_records_say_the_same(recipe, tmp_path) -> None:
    ran(tmp_path / "a", recipe)
    records = tmp_path / "a/records.jsonl"
    shutil.copy(records, tmp_path / "a/records-1.jsonl")  # a run twice counts once
    file, size = pack(tmp_path / "a", tmp_path / "b.jsonl.xz")
    assert size == file.stat().st_size < records.stat().st_size
    (tmp_path / "b").mkdir()
    file.rename(tmp_path / "b/records.jsonl.xz")
    a, b = read(tmp_path / "a"), read(tmp_path / "b")
    assert a.done == b.done and a.current() == b.current()
    for id in a.lines:
        assert sorted(map(str, a.runs(id))) == sorted(map(str, b.runs(id)))
        assert len(b.lines[id]) == 1
        assert len(json.loads(b.lines[id][0])["runs"]) == 6


def test_memory_that_runs_out_halves_the_batch(recipe, tmp_path, monkeypatch, capsys):
    whole = ran(tmp_path / "whole", recipe)

    def greedy(cell, items, task, pair, note, batch, watch):
        if batch > 32:
            pretend(cell, items[:2], task, pair, note, batch)
            raise torch.OutOfMemoryError
        pretend(cell, items, task, pair, note, batch)

    monkeypatch.setattr(experiment, "solve_cell", greedy)
    assert same(ran(tmp_path / "a", recipe), whole)
    assert "batch = 64 from here\npfref: out of memory; batch = 32" in (
        capsys.readouterr().err
    )

    def hopeless(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(experiment, "solve_cell", hopeless)
    with pytest.raises(UserError, match="out of memory with 4 particles"):
        ran(tmp_path / "b", recipe)


@pytest.mark.parametrize(
    "options, message",
    [
        ('method = "gibbs"', "4 sweeps of 1 chains take at least 8 particles"),
        ('method = "tempering"\nsweeps = 2', "take at least 8 particles"),
        ('method = "gibbs"\nsweeps = 1\nfinished = "reweighted"', "absorbed"),
        ('anneal = "slowly"', "slowly"),
    ],
)
def test_a_late_mistake_is_told_at_once(recipe, tmp_path, options, message) -> None:
    text = recipe.read_text() + f'[[method]]\nlabel = "last"\n{options}\n'
    recipe.write_text(text)
    with pytest.raises(UserError, match="method 'last', budget 2: ") as told:
        ran(tmp_path / "a", recipe)
    assert message in str(told.value) and not runs_of(tmp_path / "a")


def test_the_shipped_models_in_pieces(tmp_path, capsys) -> None:
    """Two texts alike, one that cannot be read, a run in pieces: the same particles as
    in one go, and the report counts what could not be read as not solved.
    """
    problems = load_set("minimath500")[:3]
    texts = [problems[k] for k in (0, 1, 0, 2)]
    rows = [dict(problem=p.problem, answer=p.answer) for p in texts]
    rows += [dict(problem="What is blue?", answer="5")]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.toml").write_text(RECIPE.replace("minimath500", "data.jsonl"))
    recipe = str(tmp_path / "r.toml")
    common = ["run", recipe, "--seeds", "3", "--budgets", "2", "--quiet", "--out"]
    assert main([*common, str(tmp_path / "whole")]) == 0
    for limit in ("2", "3", "5"):
        assert main([*common, str(tmp_path / "a"), "--limit", limit]) == 0
    whole = runs_of(tmp_path / "whole")
    assert_same(runs_of(tmp_path / "a"), whole)
    assert len(whole) == 10 and sum(run.failed is not None for run in whole) == 2
    first, third = (
        [
            [path.steps for path in run.paths]
            for run in whole
            if run.id == f"data/000{k}"
        ]
        for k in (0, 2)
    )
    assert first != third  # twins have particles of their own
    capsys.readouterr()
    assert main(["report", str(tmp_path / "a"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == 5
    assert all(row["problems"] == 5 for row in report["rows"])
    assert main(["report", str(tmp_path / "a"), "--limit", "1", "--skip", "4"]) == 0
    assert "1 problems" in (text := capsys.readouterr().out)
    assert "0.0" in text and "100.0" not in text


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(tmp_path) -> None:
    """Twenty SIGKILLs: the records are those of an undisturbed run."""
    (tmp_path / "r.toml").write_text(RECIPE)
    source = random.Random(12)
    command = [sys.executable, "-m", "pfref", "run", str(tmp_path / "r.toml")]
    command += ["--limit", "60", "--quiet", "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    kills = 0
    while True:
        process = subprocess.Popen(
            [*command, str(tmp_path / "a")],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if kills < 20:
            begun = time.time()
            file = tmp_path / "a/records.jsonl"
            size = file.stat().st_size if file.exists() else 0
            while time.time() - begun < 120 and process.poll() is None:
                if file.exists() and file.stat().st_size > size:
                    break
                time.sleep(0.005)
            time.sleep(source.expovariate(1 / 0.3))
            process.send_signal(signal.SIGKILL)
        err = process.communicate(timeout=600)[1].decode()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
        kills += 1
    assert kills == 20
    subprocess.run(
        [*command, str(tmp_path / "b")], cwd=ROOT, env=environment, check=True
    )
    whole = runs_of(tmp_path / "b")
    assert_same(runs_of(tmp_path / "a"), whole)
    assert len(whole) == 60 * 6
