"""A reward model behind an endpoint: every score is that of the model in this process,
whatever the family, and every fault is a retry or one clear line.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pfref import RewardModel, client, solve
from pfref.errors import UserError
from pfref.judgement import AGGREGATIONS
from pfref.prm_endpoint import KEY, RewardEndpoint
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.smc import ParticleFilter
from pfref.study.memory import bodies
from tests.enumerable import PROBLEM, PROPOSAL, SEPARATOR, world
from tests.published import MAKE
from tests.served_prm import ServedPrm, compare, heads

PROBLEMS = ["Let x = 3y - 7. What is $x^2$?", "Find the sum of 12 and 34."]
NAMED: dict[str, dict[str, str]] = {
    "reasonflux": dict(family="reasonflux"),
    "math-shepherd": dict(family="math-shepherd"),
    "rlhflow": dict(family="rlhflow"),
    "versaprm": dict(family="versaprm"),
    "self": dict(family="self"),
    "trl with two": dict(separator="\n\n"),
}
ANSWERS_BY_WORDS = ("math-shepherd", "rlhflow", "versaprm", "self")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES", (0.01, 0.01, 0.01))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The enumerable world's reward model, but for its weights."""
    folder, (_, prm) = tmp_path_factory.mktemp("world"), world()
    prm.body.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Qwen2ForProcessRewardModel"]
    (folder / "config.json").write_text(json.dumps(config))
    prm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def served() -> Iterator[ServedPrm]:
    with ServedPrm(heads(world()[1])) as running:
        yield running


def connect(served: ServedPrm, folder: Path, **options: Any) -> RewardEndpoint:
    return RewardModel.connect(served.url, folder, **options)


@pytest.mark.parametrize("name", MAKE)
def test_scores_are_those_of_the_model_in_this_process(
    name: str, tmp_path: Path
) -> None:
    """Six rows of two problems, uneven steps, random ancestors after every step; a
    fifth of the rows rest at any step. Without weights here.
    """
    here = MAKE[name](tmp_path).prm
    words, outputs = name in ANSWERS_BY_WORDS, heads(here)
    if words:
        lm = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)

        def outputs(ids: Tensor) -> Tensor:
            return lm(input_ids=ids).logits

    for file in tmp_path.glob("*.safetensors*"):
        file.unlink()
    with ServedPrm(outputs, words) as running:
        there = connect(running, tmp_path, in_flight=3, **NAMED.get(name, {}))
        assert len(there.words) == 2 * words
        for aggregation in AGGREGATIONS:
            sent, scored = compare(here, there, PROBLEMS, aggregation)
            # Every text is sent from its beginning, and counted once.
            assert sent > scored


@pytest.mark.parametrize("tag", [None, SEPARATOR])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_filter_is_the_same(
    aggregation: str, tag: int | None, served: ServedPrm, folder: Path
) -> None:
    """Resampled at every step; with the rows of all tokens, or of separators."""
    (lm, here), served.tag = world(), tag
    there = connect(served, folder)
    found = []
    for prm in (here, there):
        model = Reasoning(
            lm, prm, [PROBLEM] * 20, PROPOSAL, "score", aggregation=aggregation
        )
        run = ParticleFilter(model, 5, generators(1, 20), threshold=1.0)
        weights = [step.log_weights for step in run]
        found.append((run.last, weights))
    (a, one), (b, two) = found
    assert a.state.paths.tokens == b.state.paths.tokens
    for mine, yours in zip(one, two, strict=True):
        assert mine.flatten().tolist() == pytest.approx(
            yours.flatten().tolist(), abs=1e-4
        )
    assert torch.allclose(a.log_evidence, b.log_evidence, atol=1e-4)


@pytest.mark.parametrize("method", ["gibbs", "tempering", "beam", "dvts", "adaptive"])
def test_methods_run_on_it(method: str, served: ServedPrm, folder: Path) -> None:
    lm, here = world()
    options: dict[str, Any] = dict(
        method=method, proposal=PROPOSAL, seed=2, particles=8
    )
    if method in ("gibbs", "tempering"):
        options |= dict(sweeps=2, temperatures=(1.0, 2.0))
    a, b = (
        solve([PROBLEM], lm, prm, **options)[0]
        for prm in (here, connect(served, folder))
    )
    assert [p.text for p in a.particles] == [p.text for p in b.particles]
    weights = [[p.weight for p in found.particles] for found in (a, b)]
    assert weights[1] == pytest.approx(weights[0], abs=1e-4)
    assert a.cost.scored_tokens == b.cost.scored_tokens
    assert b.cost.prm_calls == len(served.bodies) - 2  # on connecting


def scored(prm: RewardEndpoint) -> list[float]:
    judgement = prm.start([PROBLEM], 4)
    steps = [("ab\n\n",), ("b\n\n",), ("a\n\n", "b\n\n"), ("aab\n\n",)]
    prm.extend(judgement, torch.tensor([True] * 4), steps)
    return prm.log_odds(judgement).tolist()


@pytest.mark.parametrize("fault", ["cut", "empty", 503, 429, "slow"])
def test_what_may_pass_is_tried_again(
    fault: Any, served: ServedPrm, folder: Path
) -> None:
    calm = scored(connect(served, folder))
    prm = connect(served, folder, patience=0.3)
    served.slow = 0.6
    served.faults = [fault, fault]
    assert scored(prm) == calm and prm.client.retried == 2


def test_a_text_beyond_the_context_is_ruled_out(
    served: ServedPrm, folder: Path
) -> None:
    served.context = 16
    prm = connect(served, folder)
    judgement = prm.start([PROBLEM], 2)
    texts = [("a" * (11 + more) + "\n\n",) for more in (0, 1)]
    assert [len(prm.render(PROBLEM, text)[0]) for text in texts] == [16, 17]
    prm.extend(judgement, torch.tensor([True] * 2), texts)
    fits, too_long = prm.log_odds(judgement).tolist()
    assert too_long == -torch.inf < fits


def spoilt(what: Callable[[list[Any]], list[Any]]) -> Callable[[Any], Any]:
    def spoil(answer: Any) -> Any:
        answer["data"][0]["data"] = what(answer["data"][0]["data"])
        return answer

    return spoil


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (lambda rows: rows[1:], "rows for .* tokens.*step_tag_id be 4"),
        (lambda rows: [], "gives 0 rows for .* tokens.*step_tag_id be 4"),
        (lambda rows: [[*row, 0.0] for row in rows], "not one or two logits"),
        (lambda rows: [[float("nan")] * 2 for _ in rows], "NaN or infinite"),
        (lambda rows: "QUFB", "cannot be read"),
        (lambda rows: [rows[0][:1], *rows[1:]], "cannot be read"),
    ],
)
def test_answers_of_the_wrong_shape(
    what: Any, told: str, served: ServedPrm, folder: Path
) -> None:
    """Before any work, and in the middle of it."""
    prm = connect(served, folder)
    served.spoil = spoilt(what)
    for ask in (lambda: scored(prm), lambda: connect(served, folder)):
        with pytest.raises(UserError, match=told) as caught:
            ask()
        assert "\n" not in str(caught.value)


def in_bfloat16(answer: dict[str, Any]) -> dict[str, Any]:
    for item in answer["data"]:
        item["data"] = torch.tensor(item["data"]).bfloat16().tolist()
    return answer


def test_probabilities_are_refused(served: ServedPrm, folder: Path) -> None:
    """And logits that happen to lie between 0 and 1 are not."""
    served.knows = False
    with pytest.raises(UserError, match="probabilities where raw logits"):
        connect(served, folder)
    served.spoil = in_bfloat16  # they do not quite add up to one
    with pytest.raises(UserError, match="probabilities where raw logits"):
        connect(served, folder)
    served.spoil = lambda answer: answer
    plain = served.outputs
    served.outputs = lambda ids: plain(ids)[..., 1:]  # one output, a sigmoid's
    with pytest.raises(UserError, match="probabilities where raw logits"):
        connect(served, folder)
    served.knows = True
    assert scored(connect(served, folder))
    served.outputs = lambda ids: plain(ids).sigmoid()
    assert scored(connect(served, folder))
    served.outputs = lambda ids: plain(ids)[..., 1:].sigmoid()
    assert scored(connect(served, folder))


def test_a_server_that_cannot_give_log_odds(served: ServedPrm, folder: Path) -> None:
    served.words = True
    with pytest.raises(UserError, match="404.*--runner pooling"):
        connect(served, folder)
    with pytest.raises(UserError, match="no model 'other'; it serves tiny"):
        connect(served, folder, model="other")
    with pytest.raises(UserError, match="at least one request"):
        connect(served, folder, in_flight=0)
    with pytest.raises(UserError, match="cannot be reached"):
        RewardModel.connect("http://localhost:9", folder)


def test_words_that_are_not_told(tmp_path: Path) -> None:
    MAKE["versaprm"](tmp_path)
    lm = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with ServedPrm(lambda ids: lm(input_ids=ids).logits, words=True) as running:
        prm = connect(running, tmp_path, family="versaprm")
        assert prm.context == 4095  # one token is written
        running.knows = False
        with pytest.raises(UserError, match="words that are named"):
            connect(running, tmp_path, family="versaprm")
        running.words = False
        with pytest.raises(UserError, match="404.*as the language model"):
            connect(running, tmp_path, family="versaprm")


def test_the_key_is_its_own_and_is_not_told(
    served: ServedPrm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(client.KEY, "sk-policy")
    monkeypatch.setenv(KEY, "sk-secret")
    connect(served, folder)
    assert served.headers[-1]["Authorization"] == "Bearer sk-secret"
    served.faults = [401]
    with pytest.raises(UserError, match=f"wants a key.*{KEY}") as caught:
        connect(served, folder)
    served.faults = [400]
    with pytest.raises(UserError, match=r"refuses with 400: no, Bearer \*\*\*"):
        connect(served, folder)
    assert "secret" not in str(caught.value)


def test_an_error_calls_the_others_back(served: ServedPrm, folder: Path) -> None:
    prm = connect(served, folder, in_flight=2)
    judgement, asked = prm.start([PROBLEM], 32), len(served.bodies)
    served.slow, served.faults = 0.2, [400, *["slow"] * 50]
    with pytest.raises(UserError, match="refuses with 400"):
        prm.extend(judgement, torch.tensor([True] * 32), [("ab\n\n",)] * 32)
    time.sleep(1)
    assert len(served.bodies) <= asked + 4


def test_memory_is_not_planned_for_it(served: ServedPrm, folder: Path) -> None:
    lm, _ = world()
    assert bodies(lm, connect(served, folder)) == [lm.model.base_model]
