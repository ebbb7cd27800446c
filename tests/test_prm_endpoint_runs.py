"""Commands and studies whose reward model is behind an endpoint."""

import json
from pathlib import Path

import pytest

from pfref import RewardModel
from pfref.__main__ import main
from pfref.prm_endpoint import KEY
from tests.served_prm import ServedPrm, heads
from tests.test_server_runs import RECIPE


def test_flags_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    url = "http://localhost:9"
    for flags, wanted in (
        (["--prm-endpoint-model", "m"], "is for --prm-endpoint; give it"),
        (["--in-flight", "3"], "is for --endpoint or --prm-endpoint"),
        (["--prm-endpoint", url, "--prm", "self"], "takes no --prm-endpoint"),
        (["--prm-endpoint", url, "--prm-noise", "1"], "--prm-noise is for a reward"),
        (["--prm-endpoint", url, "--prm-device", "cpu"], "--prm-device is for a"),
        (["--prm-endpoint", ""], "no address of a server"),
    ):
        assert main(["solve", "Compute 1+2.", *flags]) == 2
        assert wanted in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_runs_on_it_and_records_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "sk-secret")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("limit = 5", "limit = 2"))
    here = RewardModel.load("minimath-prm", "cpu")
    told = []
    with ServedPrm(heads(here)) as first, ServedPrm(heads(here)) as second:
        for name, server in (("none", None), ("one", first), ("one", second)):
            flags = ["--prm-endpoint", server.url] if server else []
            out = ["--out", str(tmp_path / name), "--quiet"]
            assert main(["run", str(recipe), *out, *flags]) == 0
            told.append((tmp_path / name / "records.jsonl").read_text())
        assert first.bodies and not second.bodies  # wherever it is
    assert '"prm_endpoint": "served"' in told[1] and "--prm-endpoint URL" in told[1]
    assert "127.0.0.1" not in told[1] and "secret" not in told[1]
    particles, keys = [], []
    for text in (told[0], told[1]):
        lines = [json.loads(line) for line in text.splitlines()]
        paths = [line["paths"] for line in lines if "paths" in line]
        particles.append([[path[0] for path in own] for own in paths])
        keys.append({line["cell"] for line in lines if "cell" in line})
    assert particles[0] == particles[1] and not keys[0] & keys[1]
