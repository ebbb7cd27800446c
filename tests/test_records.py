"""Files of records: what a line keeps, and who may write to them."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pfref import UserError
from pfref.study.journal import Journal
from pfref.study.records import SCHEMA, decode, encode, read
from tests.recorded import path_of, run_of


def test_two_runs_on_one_file(tmp_path) -> None:
    with Journal(tmp_path), pytest.raises(UserError, match="another run is writing"):
        Journal(tmp_path)
    with Journal(tmp_path, 1), Journal(tmp_path, 2):
        for part in (1, None):
            with pytest.raises(UserError, match="another run is writing"):
                Journal(tmp_path, part)
    Journal(tmp_path).close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
def test_a_device_that_is_full(tmp_path) -> None:
    (tmp_path / "records.jsonl").symlink_to("/dev/full")
    with Journal(tmp_path) as journal, pytest.raises(UserError) as told:
        journal.append(["a line"])
    assert "No space left on device" in str(told.value)
    assert "\n" not in str(told.value)


def test_what_is_half_written_is_cut_off(tmp_path, monkeypatch, capsys) -> None:
    """By the run itself when the disk is full, and by the next run after a crash."""
    file = tmp_path / "records.jsonl"
    file.write_text("first\nhalf of a long line")
    with Journal(tmp_path) as journal:
        journal.append(["2"])
        assert file.read_text() == "first\n2\n"
        assert "was cut short" in capsys.readouterr().err
        real = os.pwrite

        def write(handle: int, data: Any, offset: int) -> int:
            if len(data) < 10:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(handle, data[:5], offset)

        monkeypatch.setattr(os, "pwrite", write)
        with pytest.raises(UserError, match="nothing recorded is lost"):
            journal.append(["a line of twenty or so"])
        assert file.read_text() == "first\n2\n"
        monkeypatch.setattr(os, "pwrite", real)
        journal.append(["3"])
    assert file.read_text() == "first\n2\n3\n"


def test_a_line_keeps_a_run() -> None:
    """Twice the same solution is written once; infinite rewards are no JSON."""
    paths = [path_of("5", 1.25), path_of(None, -float("inf")), path_of("5", 1.25)]
    record = run_of("k", "p", paths, [0.5, 0.0, 1 / 3])
    line = json.loads(encode([record]))
    assert len(line["paths"]) == 2 and len(line["steps"]) == 3
    (back,) = decode(line)
    assert back.paths == paths and back.chosen == 0
    assert back.weights == [0.5, 0.0, 0.333333]


def test_no_weight_is_lost_when_packed() -> None:
    """The least weight decides if nobody else has an answer."""
    one = run_of("k", "p", [path_of(None), path_of("5")], [1 - 3e-7, 3e-7])
    (again,) = decode(json.loads(encode([one], digits=4)))
    assert again.weights == [1.0, 3e-7]


@pytest.mark.parametrize(
    "line",
    [
        '{"id":"0\\x","steps":[],"paths":[],"runs":[]}',
        '{"session":{"schema":1,"time":"2026"}}',
        '{"session":{}}',
        "[]",
        "[" * 100_000,
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_a_damaged_line_is_counted(tmp_path, line: str, check: bool) -> None:
    (tmp_path / "records.jsonl").write_text(line + "\n")
    assert read(tmp_path, check).damaged == 1


@pytest.mark.parametrize(
    "change",
    [dict(counts=[1, 2]), dict(batch=[0, 1, 1, 1.0]), dict(particles=[7])],
)
def test_a_line_that_is_no_whole_record_is_run_again(tmp_path, change) -> None:
    """Else it would never be, and no report could read it."""
    line = json.loads(encode([run_of("k", "p", [path_of("5")])]))
    line["runs"][0] |= change
    (tmp_path / "records.jsonl").write_text(json.dumps(line) + "\n")
    study = read(tmp_path)
    assert study.damaged == 1 and not study.done


def test_the_newest_description_of_a_cell_holds(tmp_path) -> None:
    """In whichever file: packed records come last by their name."""
    told = dict(part=[1, 1], pfref="0", environment={}, cells=[["k", "a"]], schema=1)
    cell = dict(cell="k", label="a", n=1, seed=0, task="minimath")
    for name, time, choice in (("records.jsonl", "2", "vote"), ("records-9", "1", "")):
        session, own = dict(session=told | dict(time=time)), cell | dict(choose=choice)
        lines = [json.dumps(line) + "\n" for line in (session, own)]
        (tmp_path / Path(name).with_suffix(".jsonl")).write_text("".join(lines))
    assert read(tmp_path).cells["k", "a"]["choose"] == "vote"
    (tmp_path / "records.jsonl").rename(tmp_path / "records-1.jsonl")
    assert read(tmp_path).cells["k", "a"]["choose"] == "vote"


def test_a_task_that_is_not_here_is_no_damage(tmp_path) -> None:
    cell = dict(cell="k", label="a", n=1, seed=0, task="mine")
    (tmp_path / "records.jsonl").write_text(json.dumps(cell) + "\n")
    with pytest.raises(UserError, match="no task 'mine'; take one of .* or add yours"):
        read(tmp_path)


def test_records_of_a_newer_format_are_refused(tmp_path) -> None:
    line = json.dumps(dict(session=dict(schema=SCHEMA + 1)))
    (tmp_path / "records.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="newer pfref"):
        read(tmp_path)
