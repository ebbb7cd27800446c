"""Against servers that others have written, on this machine's loopback: transformers
serve where its requirements are installed, and vLLM where PFREF_VLLM is its command.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pfref.lm import LanguageModel
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.server import Endpoint
from pfref.smc import particle_filter
from tests.enumerable import (
    PROBLEM,
    PROPOSAL,
    exact_evidence,
    standard_errors,
    world,
)

WIDTH = 128  # heads of 32: vLLM's kernels take none of 4
SERVE = "from transformers.cli.transformers import main; main()"
NEEDED = ("fastapi", "uvicorn", "openai")
HAVE = {
    "transformers": all(importlib.util.find_spec(name) for name in NEEDED),
    "vllm": bool(os.environ.get("PFREF_VLLM")),
}
REASONS = {
    "transformers": "needs transformers[serving]",
    "vllm": "needs PFREF_VLLM, the path of vLLM's command",
}


def command(kind: str, folder: Path, port: int) -> list[str]:
    if kind == "transformers":
        return [sys.executable, "-c", SERVE, "serve", str(folder), "--port", str(port)]
    limits = ["--max-model-len", "64", "--max-num-seqs", "64", "--enforce-eager"]
    start = [os.environ["PFREF_VLLM"], "serve", str(folder), "--port", str(port)]
    return [*start, "--dtype", "float32", *limits]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=pytest.mark.skipif(not have, reason=REASONS[kind]))
        for kind, have in HAVE.items()
    ],
)
def live(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str, Path]]:
    """A server of the enumerable transformer, whose checkpoint recommends settings that
    are not neutral: its kind, address and folder.
    """
    folder = tmp_path_factory.mktemp("tiny")
    lm, _ = world(3, WIDTH)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    advice = dict(top_k=2, top_p=0.7, repetition_penalty=1.5, do_sample=True)
    (folder / "generation_config.json").write_text(
        json.dumps(advice | {"eos_token_id": 0})
    )
    port = free_port()
    quiet = dict(os.environ, HF_HUB_OFFLINE="1", VLLM_CPU_KVCACHE_SPACE="1")
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command(request.param, folder, port), stdout=log, stderr=log, env=quiet
        )
    try:
        for _ in range(240):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        yield request.param, f"http://127.0.0.1:{port}/v1", folder
    finally:
        process.terminate()
        process.wait(20)


def off(z: Any) -> float:
    return standard_errors(z, exact_evidence("score", WIDTH))


def evidence(policy: Endpoint, populations: int, particles: int) -> Any:
    model = Reasoning(
        policy, world(3, WIDTH)[1], [PROBLEM] * populations, PROPOSAL, "score"
    )
    return particle_filter(model, particles, generators(3, populations)).last


@pytest.mark.slow
def test_evidence_is_that_of_the_model(live: tuple[str, str, Path]) -> None:
    kind, url, folder = live
    policy = LanguageModel.connect(url, folder, in_flight=8)
    assert policy.dialect.name == kind
    assert off(evidence(policy, 60, 4).log_evidence.exp()) < 3


@pytest.mark.slow
def test_the_advice_of_the_checkpoint_would_change_it(
    live: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail."""
    kind, url, folder = live
    policy = LanguageModel.connect(url, folder, in_flight=8)
    full = policy.dialect.body
    left_out = ("top_k", "top_p", "repetition_penalty", "generation_config")

    def bare(ask: Any) -> dict[str, Any]:
        body = {k: v for k, v in full(ask).items() if k not in left_out}
        return body | dict(temperature=ask.temperature)

    object.__setattr__(policy.dialect, "body", bare)
    monkeypatch.undo()
    try:
        assert off(evidence(policy, 60, 4).log_evidence.exp()) > 4
    finally:
        object.__setattr__(policy.dialect, "body", full)


@pytest.mark.slow
def test_the_same_seeds_give_the_same_particles(live: tuple[str, str, Path]) -> None:
    """One request at a time; at transformers' one seed more would mix."""
    _, url, folder = live
    policy = LanguageModel.connect(url, folder, in_flight=1)
    tokens = [evidence(policy, 2, 4).state.paths.tokens for _ in range(2)]
    assert tokens[0] == tokens[1]
