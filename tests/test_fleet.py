"""Ray on one machine: the records of one process, whatever the workers and whoever
dies. Where Ray is not installed, only the shares are looked at.
"""

import importlib.util
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pfref.__main__ import main
from pfref.study.fleet import Fleet, in_shares
from pfref.study.recipe import Recipe
from pfref.study.tasks import Item
from tests.recorded import assert_same, runs_of
from tests.test_server_runs import RECIPE

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs pip install 'pfref[ray]'"
)


def test_shares_are_batches_and_keep_one_text_together(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)  # batches of 8 with 4 particles: two problems
    cells = Recipe.read(str(recipe)).cells
    texts = ["a", "b", "a", "c", "d", "e"]
    items = [Item(str(k), text, "1") for k, text in enumerate(texts)]
    shares = in_shares([(cell, items) for cell in cells])
    told = [(number, [item.problem for item in own]) for number, own in shares]
    assert told == [
        (number, own)
        for number in range(len(cells))
        for own in (["a", "a", "b"], ["c", "d"], ["e"])
    ]


def test_without_ray_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    out = ["--out", str(tmp_path / "out"), "--quiet"]
    assert main(["run", str(recipe), *out, "--ray"]) == 2
    assert "--ray needs Ray" in capsys.readouterr().err
    assert main(["run", str(recipe), *out, "--workers", "2"]) == 2
    assert "--workers is the number" in capsys.readouterr().err


def workers() -> list[int]:
    """Processes of actors that map."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"MapWorker" in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


@needs_ray
@pytest.mark.slow
def test_the_same_records_with_one_worker_two_and_one_that_dies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)

    def run(folder: str, *flags: str) -> int:
        out = ["--out", str(tmp_path / folder), "--quiet"]
        return main(["run", str(recipe), *out, *flags])

    def kill() -> None:
        """Twice, whoever works."""
        end = time.monotonic() + 240
        while killed[0] < 2 and time.monotonic() < end:
            for pid in workers()[:1]:
                time.sleep(4)
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed[0] += 1
                except ProcessLookupError:
                    pass
            time.sleep(0.2)

    assert run("none") == 0
    for count in ("1", "2"):
        assert run(count, "--ray", "--workers", count) == 0
        assert_same(runs_of(tmp_path / count), runs_of(tmp_path / "none"))
    killed = [0]
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert run("killed", "--ray", "--workers", "1") == 0
    killer.join(0)
    assert killed[0] >= 1
    assert_same(runs_of(tmp_path / "killed"), runs_of(tmp_path / "none"))
    assert run("killed", "--ray") == 0  # nothing is left, and Ray is not asked
    with pytest.raises(ValueError, match="there is no Ray cluster"):
        Fleet("127.0.0.1:9").run([], None, print)
