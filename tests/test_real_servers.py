"""Against servers that others have written, on this machine's loopback: transformers
serve where its requirements are installed, vLLM where PFREF_VLLM is its command, and
llama.cpp where PFREF_LLAMA is its server's.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    far_from_posterior,
    standard_errors,
    world,
)
from tests.gguf_files import write_gguf
from tests.live import free_port, llama, running

WIDTH = 128  # heads of 32: vLLM's kernels take none of 4
SERVE = "from transformers.cli.transformers import main; main()"
NEEDED = ("fastapi", "uvicorn", "openai")
HAVE = {
    "transformers": all(importlib.util.find_spec(name) for name in NEEDED),
    "vllm": bool(os.environ.get("PFREF_VLLM")),
    "llama.cpp": bool(os.environ.get("PFREF_LLAMA")),
}
REASONS = {
    "transformers": "needs transformers[serving]",
    "vllm": "needs PFREF_VLLM, the path of vLLM's command",
    "llama.cpp": "needs PFREF_LLAMA, the path of llama.cpp's server",
}


def command(kind: str, folder: Path, port: int) -> list[str]:
    if kind == "transformers":
        return [sys.executable, "-c", SERVE, "serve", str(folder), "--port", str(port)]
    if kind == "llama.cpp":
        slots = ["--parallel", "8", "--threads", "1"]  # more would wait for each other
        return llama(folder / "tiny.gguf", port, *slots)
    limits = ["--max-model-len", "64", "--max-num-seqs", "64", "--enforce-eager"]
    start = [os.environ["PFREF_VLLM"], "serve", str(folder), "--port", str(port)]
    return [*start, "--dtype", "float32", *limits]


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
    if request.param == "llama.cpp":
        own = dict(top_k=2, top_p=0.7, penalty_repeat=1.5)
        write_gguf(lm.model, lm.tokenizer, folder / "tiny.gguf", **own)
    port = free_port()
    with running(command(request.param, folder, port), port, folder / "log"):
        yield request.param, f"http://127.0.0.1:{port}/v1", folder


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
    left_out = ["top_k", "top_p", "repetition_penalty", "generation_config"]
    left_out += ["repeat_penalty", "samplers"]

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
def test_posterior_is_approached_as_n_grows(live: tuple[str, str, Path]) -> None:
    """Through `solve`, as users call it."""
    _, url, folder = live
    policy = LanguageModel.connect(url, folder, in_flight=8)
    few, many = (far_from_posterior(policy, n, WIDTH) for n in (8, 128))
    assert many < few / 2


@pytest.mark.slow
def test_the_same_seeds_give_the_same_particles(live: tuple[str, str, Path]) -> None:
    """One request at a time; at transformers' one seed more would mix."""
    _, url, folder = live
    policy = LanguageModel.connect(url, folder, in_flight=1)
    tokens = [evidence(policy, 2, 4).state.paths.tokens for _ in range(2)]
    assert tokens[0] == tokens[1]
