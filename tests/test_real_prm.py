"""Reward models behind vLLM, where PFREF_VLLM is its command: raw logits of three kinds
of heads by /pooling, and two words' log probabilities by /v1/completions.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pfref import RewardModel
from pfref.prm_endpoint import RewardEndpoint
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.smc import particle_filter
from tests.enumerable import (
    PROBLEM,
    PROPOSAL,
    SEPARATOR,
    exact_evidence,
    standard_errors,
    world,
)
from tests.hub_layouts import (
    SIZES,
    language_model,
    llama_tokenizer,
    qwen_tokenizer,
    token_classifier,
    with_score,
)
from tests.live import free_port, running
from tests.served_prm import compare

WIDTH = 128  # heads of 32: vLLM's kernels take none of 4
WIDE = dict(hidden_size=WIDTH, initializer_range=0.1)
MAKE = {
    "qwen": lambda folder: with_score(folder, "Qwen2ForProcessRewardModel", 2),
    "universal": lambda folder: with_score(folder, "Qwen2ForRewardModel", 1),
    "trl": lambda folder: token_classifier(folder, qwen_tokenizer()),
    "versaprm": lambda folder: language_model(folder, llama_tokenizer()),
    "world": lambda folder: save_world(folder),
}
TAGS = {"qwen": 3, "world": SEPARATOR}  # <extra_0>, as these tokenizers have it
WORDS = ("versaprm",)
PROBLEMS = ["Let x = 3y - 7. What is $x^2$?", "Find the sum of 12 and 34."]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("PFREF_VLLM"),
        reason="needs PFREF_VLLM, the path of vLLM's command",
    ),
]


def save_world(folder: Path) -> None:
    """The enumerable world's reward model in the layout of Qwen's."""
    _, prm = world(3, WIDTH)
    tensors = {f"model.{name}": x for name, x in prm.body.state_dict().items()}
    tensors |= {f"score.{name}": x for name, x in prm.head.net.state_dict().items()}
    save_file(
        {name: x.contiguous() for name, x in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    prm.body.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Qwen2ForProcessRewardModel"]
    (folder / "config.json").write_text(json.dumps(config))
    prm.tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module", params=MAKE)
def live(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path, RewardEndpoint]]:
    """A family, its folder, and the reward model behind vLLM."""
    folder, name = tmp_path_factory.mktemp("prm"), request.param
    with pytest.MonkeyPatch.context() as patch:
        for key, value in WIDE.items():
            patch.setitem(SIZES, key, value)
        MAKE[name](folder)
    port, most = free_port(), "64" if name == "world" else "1024"
    command = [os.environ["PFREF_VLLM"], "serve", str(folder), "--port", str(port)]
    command += ["--max-model-len", most, "--max-num-seqs", "16", "--enforce-eager"]
    command += ["--dtype", "float32"]
    command += [] if name in WORDS else ["--runner", "pooling"]
    if tag := TAGS.get(name):  # vLLM's own is that of Qwen's vocabulary
        command += ["--pooler-config", json.dumps(dict(step_tag_id=tag))]
    with running(command, port, folder / "log"):
        url, family = f"http://127.0.0.1:{port}/v1", name if name in WORDS else None
        yield name, folder, RewardModel.connect(url, folder, family=family)


def test_scores_are_those_of_the_model_in_this_process(
    live: tuple[str, Path, RewardEndpoint],
) -> None:
    name, folder, there = live
    if name == "world":
        pytest.skip("its tokenizer has two letters")
    family = name if name in WORDS else None
    here = RewardModel.load(folder, "cpu", "float32", family=family)
    for aggregation in ("last", "prod", "model"):
        sent, counted = compare(here, there, PROBLEMS, aggregation)
        print(f"{name}, {aggregation}: {sent} tokens sent, {counted} counted")


def test_the_filter_is_the_same_and_its_evidence_exact(
    live: tuple[str, Path, RewardEndpoint],
) -> None:
    name, _, there = live
    if name != "world":
        pytest.skip("it is not enumerable")
    lm, here = world(3, WIDTH)
    runs = []
    for prm in (here, there):
        model = Reasoning(lm, prm, [PROBLEM] * 60, PROPOSAL, "score")
        runs.append(particle_filter(model, 4, generators(3, 60), threshold=1.0).last)
    a, b = runs
    assert a.state.paths.tokens == b.state.paths.tokens
    assert torch.allclose(a.log_weights, b.log_weights, atol=1e-4)
    exact = exact_evidence("score", WIDTH)
    assert standard_errors(b.log_evidence.exp(), exact) < 3
