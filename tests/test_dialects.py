"""What showed only against real servers, or in their sources: where they stop, what
they leave out, and how much they take. The imitations answer as they do.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from pfref import connection, dialects, solve
from pfref.errors import UserError
from tests.enumerable import DELIMITER, END, PROBLEM, PROPOSAL, world
from tests.served import SGLANG, Served
from tests.test_server import GREEDY, KINDS, endpoint, step

A, B = 2, 3
ASK = dialects.Ask("m", [1], "t", 5, 3, 0.8, ["\n\n"], [0], [1])


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_end_nothing_here(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp stops at <|fim_pad|> and its like too; in this process a solution goes
    on after them.
    """
    lm, _ = world()
    with Served(kind, lm) as running:
        written = [[B], [A, DELIMITER]]

        def write(ids: list[int], a: dict[str, Any]) -> tuple[list[int], str, Any]:
            tokens = written.pop(0)
            if tokens == [B]:
                return tokens, "end", B
            return tokens, "word", "\n\n"

        monkeypatch.setattr(running, "write", write)
        found = step(endpoint(running), lm.prompt(PROBLEM))
        assert found.tokens == [B, A, DELIMITER] and not found.ended
        assert not written
        asked = [body.get("input_ids") or body["prompt"] for body in running.bodies]
        assert asked[1] == [*asked[0], B]


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_token_is_the_last_that_comes(kind: str) -> None:
    lm, prm = world()
    with Served(kind, lm) as running:
        found = solve(PROBLEM, endpoint(running), prm, 16, proposal=PROPOSAL)
        finished = [p for p in found.particles if p.finished]
        assert finished
        for particle in finished:
            ids = lm.tokenizer(particle.text)["input_ids"] if particle.text else []
            assert particle.tokens == len(ids) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_of_the_servers_own_ends_no_step(kind: str) -> None:
    """As SGLang's SGLANG_MAX_NEW_TOKENS_LIMIT is."""
    lm, prm = world()
    with Served(kind, lm) as running:
        running.cap = 1
        options = dict(method="greedy", proposal=GREEDY)
        here = solve([PROBLEM], lm, prm, 1, **options)[0]
        there = solve([PROBLEM], endpoint(running), prm, 1, **options)[0]
        assert there.particles[0].steps == here.particles[0].steps
        assert len(running.bodies) == there.particles[0].tokens > 1


def test_a_slot_of_llama_cpp_is_the_context(tmp_path: Any) -> None:
    """As it is started by default, several requests share what --ctx-size gives."""
    lm, _ = world()
    lm.model.config.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    with Served("llama.cpp", lm) as running:
        running.context = 8
        policy = connection.connect(running.url, tmp_path)
        assert policy.context == 7
        found = step(policy, lm.prompt(PROBLEM), room=7 - len(lm.prompt(PROBLEM)))
        assert len(found.tokens) <= 3
    assert connection.tokens_taken({"meta": {"n_ctx": 0}}) == []  # its router's word
    assert connection.tokens_taken({"meta": None, "max_model_len": None}) == []


def test_a_server_that_does_not_say_what_it_holds(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers serve: the context is the model's own."""
    lm, _ = world()
    lm.model.config.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    with Served("vllm", lm) as running:
        monkeypatch.setattr(running, "context", None)
        assert connection.connect(running.url, tmp_path).context == lm.context


def test_a_full_context_is_one_line_at_once() -> None:
    lm, prm = world()
    with Served("llama.cpp", lm) as running:
        running.context = 5
        policy = endpoint(running)
        with pytest.raises(UserError, match="context is full.*--ctx-size") as caught:
            solve(PROBLEM, policy, prm, 2, proposal=PROPOSAL)
        assert "\n" not in str(caught.value) and policy.client.retried == 0


def test_llama_cpp_sends_no_prompt_back() -> None:
    lm, prm = world()
    with Served("llama.cpp", lm) as running:
        answers = list[dict[str, Any]]()
        answer = running.answer

        def heard(kind: str, body: dict[str, Any]) -> dict[str, Any]:
            answers.append(answer(kind, body))
            return answers[-1]

        running.answer = heard  # type: ignore[method-assign]
        solve(PROBLEM, endpoint(running), prm, 2, proposal=PROPOSAL)
        assert all("prompt" not in found for found in answers)


def sampling(dialect: dialects.Dialect) -> dict[str, Any]:
    """What a request says of how to sample."""
    body = dialect.body(ASK)
    return body.get("sampling_params", body)


def test_one_answer_is_asked_for() -> None:
    for name, dialect in dialects.DIALECTS.items():
        asked = sampling(dialect)
        assert asked.get("n", 1) == 1 and asked.get("best_of", 1) == 1, name


@pytest.mark.parametrize("name", ["vllm", "sglang", "llama.cpp"])
def test_neutral_fields_leave_the_distribution_alone(name: str) -> None:
    asked = sampling(dialects.DIALECTS[name])
    assert asked["top_p"] == 1.0
    for field in ("min_p", "presence_penalty", "frequency_penalty"):
        assert asked[field] == 0, field
    assert asked.get("repetition_penalty", asked.get("repeat_penalty")) == 1.0


def test_sglang_knows_every_field() -> None:
    """It refuses one that it does not."""
    assert set(dialects.sglang_body(ASK)) == {"input_ids", "sampling_params"}
    assert set(dialects.sglang_body(ASK)["sampling_params"]) <= {*SGLANG.split()}


def test_a_token_that_was_not_drawn_is_no_end() -> None:
    """SGLang puts an end token where logits are NaN."""
    finish = dict(type="stop", matched="NaN happened")
    answer = dict(text="", output_ids=[END], meta_info=dict(finish_reason=finish))
    with pytest.raises(KeyError, match="NaN"):
        dialects.sglang_reply(answer)


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (None, []),
        (["tiny"], []),
        ({}, []),
        ({"data": None}, []),
        ({"data": ["tiny", None, {"id": 3}, {}, {"id": "tiny"}]}, ["tiny"]),
    ],
)
def test_a_list_of_models_may_be_anything(answer: Any, names: list[str]) -> None:
    there: Any = SimpleNamespace(get=lambda path: answer)
    assert [entry["id"] for entry in connection.listed(there)] == names
