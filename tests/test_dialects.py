"""What showed only against real servers, or in their sources: where they stop, what
they leave out, and how much they take. The imitations answer as they do.
"""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GenerationConfig

from pfref import connection, dialects, prompts, solve
from pfref.dialects import Reply
from pfref.errors import UserError
from tests.enumerable import DELIMITER, END, PROBLEM, PROPOSAL, world
from tests.served import SGLANG, Served
from tests.test_server import GREEDY, KINDS, endpoint, step

A, B = 2, 3
ASK = dialects.Ask("m", [7, 8], "t", 5, 3, 0.8, ["\n\n"], [0, 9], [1])


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


def posted(name: str, ask: dialects.Ask = ASK) -> dict[str, Any]:
    """What a server is sent, without the envelope that two of them want."""
    body = dialects.DIALECTS[name].body(ask)
    inner = body.pop("sampling_params", {})
    inner |= json.loads(body.pop("generation_config", "{}"))
    return body | inner


def test_one_answer_is_asked_for() -> None:
    for name in dialects.DIALECTS:
        asked = posted(name)
        assert asked.get("n", 1) == 1 and asked.get("best_of", 1) == 1, name


@pytest.mark.parametrize("name", ["vllm", "sglang", "llama.cpp"])
def test_neutral_fields_leave_the_distribution_alone(name: str) -> None:
    asked = posted(name)
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


PENALTIES = dict(min_p=0, presence_penalty=0, frequency_penalty=0, top_p=1)
POSTED: dict[str, dict[str, Any]] = {
    "vllm": PENALTIES
    | dict(model="m", prompt=[7, 8], max_tokens=5, seed=3, temperature=0.8, n=1)
    | dict(top_k=0, repetition_penalty=1, min_tokens=0, ignore_eos=False)
    | dict(stop=["\n\n"], stop_token_ids=[0, 9], include_stop_str_in_output=True)
    | dict(add_special_tokens=False, skip_special_tokens=True, return_token_ids=True),
    "sglang": PENALTIES
    | dict(input_ids=[7, 8], max_new_tokens=5, sampling_seed=3, temperature=0.8, n=1)
    | dict(top_k=-1, repetition_penalty=1, min_new_tokens=0, ignore_eos=False)
    | dict(stop=["\n\n"], stop_token_ids=[0, 9], no_stop_trim=True)
    | dict(skip_special_tokens=True),
    "llama.cpp": PENALTIES
    | dict(model="m", prompt=[7, 8], n_predict=5, seed=3, temperature=0.8, top_k=0)
    | dict(samplers=["temperature"], typical_p=1, top_n_sigma=-1, repeat_penalty=1)
    | dict(dry_multiplier=0, xtc_probability=0, dynatemp_range=0, mirostat=0)
    | dict(ignore_eos=False, logit_bias=[], stop=["\n\n"], return_tokens=True)
    | dict(cache_prompt=True, n_cache_reuse=0)
    | dict(response_fields=["tokens", "content", "stop_type", "truncated"]),
    "transformers": dict(model="m", prompt="t", seed=3, max_tokens=6, do_sample=True)
    | dict(top_k=0, top_p=1, repetition_penalty=1, max_new_tokens=6, temperature=0.8)
    | dict(eos_token_id=[0, 9, 1], pad_token_id=0),
}


@pytest.mark.parametrize("name", POSTED)
def test_every_field_that_is_sent(name: str) -> None:
    """A field of another name is left out in silence by some servers."""
    assert posted(name) == POSTED[name]


def test_transformers_is_given_no_temperature_of_zero() -> None:
    body = posted("transformers", replace(ASK, temperature=0.0))
    assert body["do_sample"] is False and "temperature" not in body


def choice(why: str, stop: Any = None) -> dict[str, Any]:
    own = dict(text="a", token_ids=[A], finish_reason=why, stop_reason=stop)
    return dict(choices=[own])


def generated(**finish: Any) -> dict[str, Any]:
    meta = dict(finish_reason=finish)
    return dict(text="a", output_ids=[A], meta_info=meta)


def completed(why: str) -> dict[str, Any]:
    return dict(content="a", tokens=[A], stop_type=why, truncated=False)


@pytest.mark.parametrize(
    ("name", "answer", "tokens", "why"),
    [
        ("vllm", choice("length"), [A], "length"),
        ("vllm", choice("stop"), [A], "end"),
        ("vllm", choice("stop", 9), [A], "end"),
        ("vllm", choice("stop", "\n\n"), [A], "stop"),
        ("sglang", generated(type="length"), [A], "length"),
        ("sglang", generated(type="stop", matched=0), [A], "end"),
        ("sglang", generated(type="stop", matched="\n\n"), [A], "stop"),
        ("llama.cpp", completed("limit"), [A], "length"),
        ("llama.cpp", completed("eos"), [A], "end"),
        ("llama.cpp", completed("word"), [A], "stop"),
        ("transformers", choice("length"), None, "length"),
        ("transformers", choice("stop"), None, "stop"),
    ],
)
def test_how_an_answer_is_read(
    name: str, answer: dict[str, Any], tokens: list[int] | None, why: str
) -> None:
    assert dialects.DIALECTS[name].reply(answer) == Reply(tokens, "a", why)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("vllm", choice("abort")), ("sglang", generated(type="abort", message="?"))],
)
def test_a_request_that_a_server_gave_up_is_no_answer(
    name: str, answer: dict[str, Any]
) -> None:
    with pytest.raises(KeyError, match="finish_reason 'abort'"):
        dialects.DIALECTS[name].reply(answer)


def test_where_each_server_is_asked_and_what_it_promises() -> None:
    told = {d.name: (d.path, d.ids, d.spare) for d in dialects.DIALECTS.values()}
    assert told == {
        "vllm": ("/v1/completions", True, 0),
        "sglang": ("/generate", True, 6),
        "llama.cpp": ("/completion", True, 1),
        "transformers": ("/v1/completions", False, 0),
    }
    promise = {d.name: d.promise for d in dialects.DIALECTS.values()}
    assert promise["vllm"] == promise["llama.cpp"]
    assert promise["vllm"].startswith("the same seeds give the same particles as long")
    assert promise["sglang"].endswith("runs with --enable-deterministic-inference")
    assert "one by one (--in-flight 1) repeat; texts" in promise["transformers"]


def says(answer: Any, path: str = "/openapi.json") -> Any:
    """A client of a server that gives this answer at one path."""
    return SimpleNamespace(root="http://host", get={path: answer}.__getitem__)


def test_transformers_is_known_by_its_paths() -> None:
    there = says({"paths": {"/v1/models": {}, "/load_model": {}}})
    assert connection.kind_of(there, []) == "transformers"
    answers: list[Any] = [None, [], {}, {"paths": "/load_model"}, {"paths": {"/v1": 1}}]
    for answer in answers:
        with pytest.raises(UserError, match="names it: vllm, sglang, llama.cpp, tr"):
            connection.kind_of(says(answer), [{"id": "m", "owned_by": "me"}])


def test_one_of_the_models_that_are_served_is_chosen() -> None:
    served = [{"id": name} for name in "abcdefg"]
    assert connection.chosen(served[:1], None, "there") == {"id": "a"}
    assert connection.chosen(served, "b", "there") == {"id": "b"}
    for some, model, told in (
        (served[:1], "z", "no model 'z'; it serves a: name one of them"),
        (served[:2], None, "2 models; it serves a, b: name one of them"),
        (served, "z", "no model 'z'; it serves a, b, c, d, e: name one of them"),
        ([], None, "0 models: name one of them"),
    ):
        with pytest.raises(UserError) as caught:
            connection.chosen(some, model, "there")
        assert str(caught.value) == f"the server at there has {told}"


def test_how_many_tokens_a_server_says_it_holds() -> None:
    assert connection.tokens_taken({"max_model_len": 1}) == [1]
    entry = {"max_model_len": 9, "meta": {"n_ctx": 8}}
    assert connection.tokens_taken(entry) == [9, 8]
    assert connection.tokens_taken({"max_model_len": "9", "meta": {"n_ctx": -1}}) == []


@pytest.fixture
def folder(tmp_path: Any) -> Any:
    """The world's language model without its weights, which two tokens may end."""
    lm, _ = world()
    lm.model.config.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    GenerationConfig(eos_token_id=[END, B]).save_pretrained(tmp_path)
    return tmp_path


def reached(
    folder: Any, monkeypatch: pytest.MonkeyPatch, *served: str, **options: Any
) -> Any:
    """A policy at a server of these models, each for 32 tokens."""
    entries = [{"id": name, "max_model_len": 32} for name in served]
    monkeypatch.setattr(connection, "listed", lambda client: entries)
    return connection.connect("localhost:9", folder, **options)


def test_what_a_policy_at_a_server_is_made_of(
    folder: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prompts, "told", set())
    lists: Any = (folder, monkeypatch, "a", "b")
    own: dict[str, Any] = dict(model="b", dialect="vllm")
    usual = reached(*lists, **own)
    told = "pfref: the policy is behind vllm: the same seeds"
    assert capsys.readouterr().err.startswith(told)
    assert (usual.model, usual.context, usual.vocabulary) == ("b", 32, 4)
    assert usual.ends == [END, B] and usual.template_args is None
    assert (usual.pool.size, usual.client.patience) == (64, 600)
    other = reached(*lists, in_flight=1, patience=7, template_args={"x": 1}, **own)
    assert (other.pool.size, other.client.patience) == (1, 7)
    assert other.template_args == {"x": 1}
    for wrong, words in (
        (dict(revision="v9"), "has no revision 'v9'"),
        (dict(in_flight=0), "at least one request in flight, not 0"),
        (dict(dialect="x"), "of vllm, sglang, llama.cpp, transformers, and not 'x'"),
    ):
        with pytest.raises(UserError, match=words):
            reached(*lists, **own | wrong)


def test_transformers_may_load_what_it_does_not_list(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for served, asked, model, context in (
        (["a"], None, "a", 32),
        ([], None, str(folder), 64),
        (["a", "b"], "another", "another", 64),
    ):
        own: dict[str, Any] = dict(model=asked, dialect="transformers")
        found = reached(folder, monkeypatch, *served, **own)
        assert (found.model, found.context) == (model, context)
    with pytest.raises(UserError, match="has 0 models: name one of them"):
        reached(folder, monkeypatch, dialect="vllm")
