"""A reward model behind an endpoint: every score is that of the model in this process,
whatever the family, and every fault is a retry or one clear line.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pfref import RewardModel, client, solve
from pfref.errors import UserError
from pfref.judgement import AGGREGATIONS
from pfref.prm_endpoint import (
    KEY,
    RewardEndpoint,
    log_probabilities,
    outputs,
    pooling_body,
    words_body,
)
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
HEAD = (
    "a reward model with a head of its own is served by vLLM: vllm serve NAME "
    "--runner pooling"
)
LM = (
    "a reward model that answers by words is served by vLLM as the language model that "
    "it is: vllm serve NAME"
)
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
    sent = [len(prm.render(PROBLEM, text)[0]) for text in steps]
    assert (judgement.cache.calls, judgement.cache.tokens) == (4, sum(sent))
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
    assert (prm.context, prm.pool.size, prm.client.patience) == (16, 64, 600)
    judgement = prm.start([PROBLEM], 2)
    texts = [("a" * (11 + more) + "\n\n",) for more in (0, 1)]
    assert [len(prm.render(PROBLEM, text)[0]) for text in texts] == [16, 17]
    prm.extend(judgement, torch.tensor([True] * 2), texts)
    assert (judgement.cache.calls, judgement.cache.tokens) == (1, 16)
    fits, too_long = prm.log_odds(judgement).tolist()
    assert too_long == -torch.inf < fits


def spoilt(what: Callable[[list[Any]], list[Any]]) -> Callable[[Any], Any]:
    def spoil(answer: Any) -> Any:
        answer["data"][0]["data"] = what(answer["data"][0]["data"])
        return answer

    return spoil


def all_the_same(*row: float) -> Callable[[Any], Any]:
    return spoilt(lambda rows: [[*row]] * len(rows))


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
    for one, refused in ((0.0, True), (1.0, True), (1.5, False), (-0.5, False)):
        served.spoil = all_the_same(one)
        if refused:
            with pytest.raises(UserError, match="probabilities where raw logits"):
                connect(served, folder)
        else:  # logits of a server that has no activation
            assert connect(served, folder)
    served.spoil = all_the_same(0.9, 0.9)
    assert connect(served, folder)
    served.spoil = lambda answer: answer
    served.knows = True
    assert scored(connect(served, folder))
    served.outputs = lambda ids: plain(ids).sigmoid()
    assert scored(connect(served, folder))
    served.outputs = lambda ids: plain(ids)[..., 1:].sigmoid()
    assert scored(connect(served, folder))


def test_a_server_that_cannot_give_log_odds(served: ServedPrm, folder: Path) -> None:
    served.words = True
    with pytest.raises(UserError, match=f"404.*; {HEAD}$"):
        connect(served, folder)
    with pytest.raises(UserError, match="no model 'other'; it serves tiny"):
        connect(served, folder, model="other")
    with pytest.raises(UserError, match="at least one request in flight, not 0"):
        connect(served, folder, in_flight=0)
    with pytest.raises(UserError, match="has no revision 'v9'"):
        connect(served, folder, revision="v9")
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
        with pytest.raises(UserError, match=f"404.*; {LM}$"):
            connect(running, tmp_path, family="versaprm")


def test_the_key_is_its_own_and_is_not_told(
    served: ServedPrm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(client.KEY, "sk-policy")
    monkeypatch.setenv("PFREF_PRM_API_KEY", "sk-secret")
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
    prm = connect(served, folder, in_flight=1)
    assert prm.pool.size == 1
    prm = connect(served, folder, in_flight=2)
    judgement, asked = prm.start([PROBLEM], 32), len(served.bodies)
    served.slow, served.faults = 0.2, [400, *["slow"] * 50]
    with pytest.raises(UserError, match="refuses with 400"):
        prm.extend(judgement, torch.tensor([True] * 32), [("ab\n\n",)] * 32)
    time.sleep(1)
    assert len(served.bodies) <= asked + 4


def test_memory_is_not_planned_for_it(served: ServedPrm, folder: Path) -> None:
    lm, _ = world()
    prm = connect(served, folder)
    assert bodies(lm, prm) == [lm.model.base_model]
    assert prm.body is None and prm.device == torch.device("cpu")


def test_every_field_that_is_sent() -> None:
    assert pooling_body("m", [1, 2], False) == dict(
        model="m",
        input=[1, 2],
        task="token_classify",
        use_activation=False,
        encoding_format="float",
        add_special_tokens=False,
    )
    neutral = dict(min_p=0, presence_penalty=0, frequency_penalty=0, top_p=1, top_k=0)
    assert words_body("m", [1, 2], [5, 6]) == neutral | dict(
        model="m",
        prompt=[1, 2],
        max_tokens=1,
        n=1,
        seed=0,
        temperature=1,
        repetition_penalty=1,
        ignore_eos=True,
        logprobs=2,
        logprob_token_ids=[5, 6],
        return_tokens_as_token_ids=True,
        add_special_tokens=False,
    )


def test_how_answers_are_read() -> None:
    for data, shape in (([1, 2], (2, 1)), ([[1, 2]], (1, 2)), ([], (0, 1))):
        found = outputs(dict(data=[dict(data=data)]))
        assert found.shape == shape and found.dtype == torch.float32
        assert found.flatten().tolist() == [1, 2][: found.numel()]
    for logprobs, told in (
        (None, {}),
        ({}, {}),
        (dict(top_logprobs=[]), {}),
        (dict(top_logprobs=[{"token_id:5": -1.0}]), {"token_id:5": -1.0}),
    ):
        assert log_probabilities(dict(choices=[dict(logprobs=logprobs)])) == told


def unconnected(answer: Any) -> Any:
    """What a reward endpoint asks its client for, which gives this answer."""
    asked: list[tuple[Any, ...]] = []

    def post(*what: Any) -> Any:
        asked.append(what)
        return answer

    client = SimpleNamespace(root="http://host", post=post)
    return SimpleNamespace(client=client, model="m", words=[5, 6], asked=asked)


def test_what_is_asked_can_be_stopped() -> None:
    stopped, there = threading.Event(), unconnected(dict.fromkeys(WORD_IDS, -1.0))
    RewardEndpoint.logits(there, [1], stopped=stopped)
    RewardEndpoint.compared(there, [1], stopped)
    assert there.asked == [
        ("/pooling", pooling_body("m", [1], False), outputs, stopped),
        ("/v1/completions", words_body("m", [1], [5, 6]), log_probabilities, stopped),
    ]


WORD_IDS = ("token_id:5", "token_id:6")


@pytest.mark.parametrize(
    ("wrong", "right", "z"),
    [
        (-3.0, -1.0, 2.0),
        (-20.0, -1e-9, 20.0),
        (-9998.5, 0.0, 9998.5),
        (-9999.0, 0.0, None),
        (0.0, -9999.0, None),
    ],
)
def test_a_word_that_is_impossible_has_no_log_odds(
    wrong: float, right: float, z: float | None
) -> None:
    told = dict(zip(WORD_IDS, (wrong, right), strict=True))
    found = RewardEndpoint.compared(unconnected(told), [1], None)
    assert found.dtype == torch.float32 and found.shape == (1,)
    assert found.isnan() if z is None else found.item() == pytest.approx(z)


def test_which_rows_are_the_separators() -> None:
    there, ids = unconnected(None), [4, 6, 4, 7, 4]
    for places, rows, found in (
        ([1, 3], 5, [1, 3]),
        ([0, 2, 4], 3, [0, 1, 2]),
        ([4], 3, [2]),
    ):
        assert RewardEndpoint.which(there, ids, places, rows) == found
    for places, rows in (([2, 4], 2), ([1, 4], 3)):
        with pytest.raises(UserError, match=f"{rows} rows for 5 tokens.* be 4 "):
            RewardEndpoint.which(there, ids, places, rows)
