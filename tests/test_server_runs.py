"""A study whose policy is behind an endpoint: what dies with the server is done again,
and nothing else.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pfref import client
from pfref.__main__ import main
from pfref.lm import LanguageModel
from pfref.printing import watching
from tests.recorded import assert_same, runs_of
from tests.served import Served

RECIPE = """
task = "minimath"
data = "minimath500"
limit = 5
model = "minimath-small"
prm = "minimath-prm"
budgets = [4]
seeds = [0]

[settings]
temperature = 0.8
batch = 8

[[method]]
label = "filter"
method = "filter"

[[method]]
label = "greedy search"
method = "greedy-search"
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    with Served("vllm", LanguageModel.load("minimath-small", "cpu")) as served:
        yield served


@pytest.mark.slow
def test_a_server_that_dies_twenty_times(
    running: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(client, "PAUSES", (0.01, 0.01))
    monkeypatch.setenv(client.KEY, "sk-secret")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)

    def run(folder: str, deaths: int | None) -> int:
        running.dead_after = deaths
        out = ["--out", str(tmp_path / folder), "--quiet", "--in-flight", "4"]
        return main(["run", str(recipe), "--endpoint", running.url, *out])

    assert run("whole", None) == 0
    moments = random.Random(0)
    codes = [run("died", moments.randrange(2, 60)) for _ in range(20)]
    assert 2 in codes
    said = capsys.readouterr().err.splitlines()
    lines = [line for line in said if "cannot be reached" in line]
    assert len(lines) == codes.count(2)
    assert run("died", None) == 0
    assert_same(runs_of(tmp_path / "died"), runs_of(tmp_path / "whole"))
    for folder in ("died", "whole"):
        text = (tmp_path / folder / "records.jsonl").read_text()
        assert "secret" not in text and "127.0.0.1" not in text
    assert "secret" not in "".join(said)


def test_progress_shows_requests_in_flight(
    running: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = "Compute ((12+30)*3)-26."
    assert main(["solve", problem, "-n", "4", "--endpoint", running.url]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "ESS" in line]
    assert lines and all(line.endswith(" requests in flight") for line in lines)
    assert "up to 4 requests" in lines[0]
    assert main(["solve", problem, "-n", "4"]) == 0
    assert "in flight" not in capsys.readouterr().err


def test_a_study_shows_them_no_oftener_than_its_bar() -> None:
    served = SimpleNamespace(client=SimpleNamespace(in_flight=1, peak=3))
    here = SimpleNamespace()
    said: list[str] = []
    progress = SimpleNamespace(
        disable=False,
        mininterval=60.0,
        set_postfix_str=lambda text, refresh: said.append(text),
        refresh=lambda: said.append("shown"),
    )
    assert watching(progress, (here, here)) is None
    progress.disable = True
    assert watching(progress, (served, here)) is None
    progress.disable = False
    watch = watching(progress, (served, served))
    assert watch is not None
    served.client.peak = 3
    watch(None)
    assert said == ["up to 4 requests in flight"]  # its peak, then now
    progress.mininterval = 0.0
    watch(None)
    assert said[-1] == "shown"


def test_one_server_is_not_taken_for_two_models(
    running: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its answers would be recorded as the other model's."""
    recipe, out = tmp_path / "recipe.toml", ["--out", str(tmp_path / "out")]
    other = RECIPE + 'model = "minimath-large"\n'
    recipe.write_text(other)
    assert main(["run", str(recipe), "--endpoint", running.url, *out]) == 2
    assert "give it an endpoint of its own" in capsys.readouterr().err
    recipe.write_text("endpoint = 8000\n" + RECIPE)
    assert main(["run", str(recipe), *out]) == 2
    assert "endpoint is a text in quotes, not 8000" in capsys.readouterr().err
