"""A policy behind an endpoint: the distribution is that of the model in this process,
whatever the server's defaults; and every fault is a retry or one clear line.
"""

import dataclasses
import random
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from inspect import signature
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from pfref import client, connection, dialects, prm_endpoint, server, solve
from pfref.__main__ import main
from pfref.dialects import LENGTH, Reply
from pfref.errors import UserError
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.smc import ParticleFilter
from tests.enumerable import (
    DELIMITER,
    END,
    PROBLEM,
    PROPOSAL,
    exact_evidence,
    far_from_posterior,
    standard_errors,
    tokenizer_of,
    world,
)
from tests.served import Served

A, B = 2, 3
GREEDY = dataclasses.replace(PROPOSAL, temperature=0.0)
KINDS = ("vllm", "sglang", "llama.cpp")
LONG = [
    kind if kind == "vllm" else pytest.param(kind, marks=pytest.mark.slow)
    for kind in KINDS
]


def endpoint(
    served: Served, kind: str = "", in_flight: int = 4, **changes: Any
) -> server.Endpoint:
    """The world's language model behind `served`, which fails at once."""
    lm, _ = world()
    dialect = dataclasses.replace(dialects.DIALECTS[kind or served.kind], **changes)
    return server.Endpoint(
        client.Client(served.url, patience=5, pauses=(0.01, 0.01, 0.01)),
        dialect,
        "tiny",
        lm.tokenizer,
        sorted(lm.end_tokens),
        lm.context,
        lm.vocabulary,
        in_flight=in_flight,
    )


@pytest.fixture(params=KINDS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with Served(request.param, world()[0]) as running:
        yield running


def evidence(policy: Any, populations: int, particles: int = 6) -> torch.Tensor:
    """The filter's estimate in each of P populations."""
    model = Reasoning(policy, world()[1], [PROBLEM] * populations, PROPOSAL, "score")
    run = ParticleFilter(model, particles, generators(7, populations))
    for _ in run:
        pass
    return run.last.log_evidence.exp()


def off(z: torch.Tensor) -> float:
    return standard_errors(z, exact_evidence("score"))


@pytest.mark.parametrize("kind", LONG)
def test_evidence_through_each_dialect(kind: str) -> None:
    with Served(kind, world()[0]) as running:
        assert off(evidence(endpoint(running), 60)) < 3
        for body in running.bodies:
            ids = body.get("input_ids", body.get("prompt"))
            assert isinstance(ids, list)  # and no text, which would be tokenised anew


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_fills_in_what_is_left_out(kind: str) -> None:
    """The test above can fail: without the neutral fields it does."""
    full = dialects.DIALECTS[kind].body
    neutral = ("temperature", "top_k", "samplers")

    def bare(ask: dialects.Ask) -> dict[str, Any]:
        body = full(ask)
        own = body.get("sampling_params", body)
        for name in neutral:
            own.pop(name, None)
        return body

    with Served(kind, world()[0]) as running:
        assert off(evidence(endpoint(running, body=bare), 60)) > 6


@pytest.mark.slow
def test_posterior_is_approached_as_n_grows() -> None:
    """Through `solve`, as users call it."""
    with Served("vllm", world()[0]) as running:
        policy = endpoint(running)
        few, many = (far_from_posterior(policy, n) for n in (8, 128))
        assert many < few / 2


def test_one_seed_a_request_and_the_same_particles_again(served: Served) -> None:
    _, prm = world()

    def texts(in_flight: int, problems: list[str]) -> list[str]:
        policy = endpoint(served, in_flight=in_flight)
        found = solve(problems, policy, prm, 6, seed=5, proposal=PROPOSAL)
        return [p.text for p in found[0].particles]

    alone = texts(1, [PROBLEM])
    seeds = [body.get("sampling_params", body) for body in served.bodies]
    drawn = [own.get("sampling_seed", own.get("seed")) for own in seeds]
    assert len(set(drawn)) == len(drawn)
    assert texts(4, [PROBLEM]) == alone
    assert texts(4, [PROBLEM, "baab", "aabb"]) == alone


def step(policy: server.Endpoint, ids: list[int], room: int = 7, **changes: Any) -> Any:
    proposal = dataclasses.replace(PROPOSAL, **changes)
    paths = policy.start([ids], 1, proposal)
    return policy.step(paths.work, ids, policy.text_of(ids), room, seed=3)


def test_steps_end_as_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server writes is cut by the delimiter's automaton, not at its word."""
    lm, _ = world()
    with Served("vllm", lm) as running:
        policy = endpoint(running)
        written: list[list[int]] = []

        def write(ids: list[int], a: dict[str, Any]) -> tuple[list[int], str, Any]:
            tokens = written.pop(0)
            ended = tokens[-1:] == [END]
            word = "\n\n" if DELIMITER in tokens else None
            cut = len(tokens) >= a["limit"] and not ended
            return tokens, "end" if ended else "length" if cut else "word", word

        monkeypatch.setattr(running, "write", write)
        for pieces, wanted, ended, truncated in (
            ([[A, DELIMITER]], [A, DELIMITER], False, False),
            ([[DELIMITER], [A, DELIMITER]], [DELIMITER, A, DELIMITER], False, False),
            ([[DELIMITER], [DELIMITER], [A]], [DELIMITER, DELIMITER, A], False, True),
            ([[A, END]], [A, END], True, False),
            ([[END]], [END], True, False),
            ([[A, B, A]], [A, B, A], False, True),  # a step's limit is 3
            ([[A, DELIMITER, B]], [A, DELIMITER], False, False),  # it went too far
        ):
            written[:] = [list(piece) for piece in pieces]
            found = step(policy, lm.prompt(PROBLEM))
            assert (found.tokens, found.ended, found.truncated) == (
                wanted,
                ended,
                truncated,
            )
            assert not written
        written[:] = [[A, DELIMITER]]
        assert step(policy, lm.prompt(PROBLEM), room=2).truncated
        written[:] = [[A, B]]
        fixed = step(policy, lm.prompt(PROBLEM), step_tokens=2)
        assert fixed.tokens == [A, B] and not fixed.truncated


def test_forced_tokens_are_not_asked_for() -> None:
    """As particle Gibbs holds its reference."""
    lm, prm = world()
    with Served("vllm", lm) as running:
        policy = endpoint(running)
        found = solve(
            PROBLEM, policy, prm, 16, method="gibbs", sweeps=2, proposal=PROPOSAL
        )
        asked = len(running.bodies)
        assert found.cost.lm_calls == asked
        assert found.particles


def test_a_text_that_closes_a_step_ends_no_solution() -> None:
    """Servers that send no tokens leave the end token to us."""
    with Served("vllm", world()[0]) as running:
        policy = endpoint(running)
        flight = policy.start([policy.prompt(PROBLEM)], 1, PROPOSAL).work
        word = next(k for k in range(4) if k not in (DELIMITER, *policy.ends))
        step = [word, DELIMITER]
        told = [
            policy.tokens_of(flight, Reply(None, policy.tokenizer.decode(ids), why))
            for ids, why in ((step, "stop"), ([word], "stop"), ([word], LENGTH))
        ]
    assert told == [step, [word, policy.ends[0]], [word]]


def test_an_idle_thread_keeps_nothing() -> None:
    pool, thing = client.Pool(1), type("Thing", (), {})()
    pool.submit(id, thing).result()
    seen = weakref.ref(thing)
    del thing
    until = time.monotonic() + 10
    while seen() and time.monotonic() < until:
        time.sleep(0.01)
    assert seen() is None


def test_threads_end_when_nobody_has_their_pool() -> None:
    before = set(threading.enumerate())
    pool = client.Pool(3)
    for future in [pool.submit(time.sleep, 0.01) for _ in range(3)]:
        future.result()
    own = set(threading.enumerate()) - before
    assert len(own) == 3
    del pool
    for thread in own:
        thread.join(10)
    assert not any(thread.is_alive() for thread in own)


@pytest.mark.parametrize("fault", [429, 503, 500, 529, "cut", "empty"])
def test_what_may_pass_is_tried_again(fault: Any) -> None:
    lm, prm = world()
    with Served("vllm", lm) as running:
        calm = solve(PROBLEM, endpoint(running), prm, 4, seed=1, proposal=PROPOSAL)
        running.faults = [fault, None, fault, fault]
        policy = endpoint(running)
        found = solve(PROBLEM, policy, prm, 4, seed=1, proposal=PROPOSAL)
        assert policy.client.retried == 3
        assert [p.text for p in found.particles] == [p.text for p in calm.particles]


@pytest.mark.parametrize(
    ("faults", "wanted"),
    [
        ([503] * 99, "answers 503"),
        (["empty"] * 99, "cannot be read"),
        ([400] * 99, "refuses with 400: no, "),
        ([404] * 99, "refuses with 404"),
        ([401] * 99, "wants a key"),
        (["slow"] * 99, "does not answer in time"),
    ],
)
def test_what_stays_is_one_line(faults: list[Any], wanted: str) -> None:
    lm, prm = world()
    with Served("vllm", lm, slow=0.6) as running:
        running.faults = faults
        policy = endpoint(running)
        policy.client.patience = 0.2
        with pytest.raises(UserError) as caught:
            solve(PROBLEM, policy, prm, 2, proposal=PROPOSAL)
    said = str(caught.value)
    assert wanted in said and "\n" not in said


def test_no_two_threads_share_a_connection() -> None:
    """Else httpcore's pool may close one under a request, which then hangs."""
    together = threading.Barrier(4)
    with Served("vllm", world()[0]) as running:
        policy = endpoint(running)

        def twice() -> set[int]:
            together.wait()  # so that each thread takes one
            return {id(policy.client.http), id(policy.client.http)}

        asked = [policy.pool.submit(twice) for _ in range(4)]
        connections = [future.result() for future in asked]
    assert [len(own) for own in connections] == [1] * 4
    assert len(set.union(*connections)) == 4


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(UserError, match="cannot be reached"):
        client.Client("localhost:9", pauses=(0.01,)).get("/v1/models")


def test_a_key_is_sent_and_never_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PFREF_API_KEY", "sk-secret")
    lm, prm = world()
    with Served("vllm", lm) as running:
        running.faults = [400]
        with pytest.raises(UserError) as caught:
            solve(PROBLEM, endpoint(running), prm, 2, proposal=PROPOSAL)
        assert running.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "***" in str(caught.value) and "secret" not in str(caught.value)
    for url in ("http://me:sk-secret@host/v1", "http://host/v1?key=sk-secret"):
        with pytest.raises(UserError) as caught:
            client.Client(url)
        assert "secret" not in str(caught.value)


def test_no_part_of_a_key_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where a long line is cut, nor of an address that is none."""
    monkeypatch.setenv(client.KEY, "sk-secret-key")
    there = client.Client("localhost:9")
    assert "sk-" not in there.said("x" * 295 + " sk-secret-key")
    for url in (
        "htp://host/v1?key=sk-secret-key",
        "http://[::1]x:80",
        "http://\u2603.x:1",
    ):
        with pytest.raises(UserError, match="no address of a server") as caught:
            client.Client(url)
        assert "sk-" not in str(caught.value)


def target(**own: float) -> dict[str, Any]:
    named = {f"target_{name}": value for name, value in own.items()}
    return dict(proposal=dataclasses.replace(PROPOSAL, **named))


def test_what_a_server_cannot_do_is_refused() -> None:
    lm, prm = world()
    with Served("vllm", lm) as running:
        policy = endpoint(running)
        policy.listen(())
        for options, what, option in (
            (dict(choose="confidence"), "does not tell how likely", "--choose con"),
            (target(power=2.0), "draws from its temperature", "--target-temperature"),
            (target(temperature=2.0), "draws from its temperature", "--target-temp"),
        ):
            told = f"is behind an endpoint, which {what}.*; load it .* leave {option}"
            with pytest.raises(UserError, match=told):
                solve(PROBLEM, policy, prm, 2, **options)
        told = "which keeps its hidden states; .* leave the probe out"
        with pytest.raises(UserError, match=told):
            policy.listen([1])
        with pytest.raises(UserError, match="draws from its temperature"):
            policy.start([[A]], 1, target(power=2.0)["proposal"])


def test_which_server_it_is(
    served: Served, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, _ = world()
    lm.model.config.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    found = connection.connect(served.url, tmp_path)
    taken = 64 - {"vllm": 0, "sglang": 6, "llama.cpp": 1}[served.kind]
    assert (found.dialect.name, found.model) == (served.kind, "tiny")
    assert found.context == taken
    assert found.ends == sorted(lm.end_tokens)
    with pytest.raises(UserError, match="no model 'other'; it serves tiny"):
        connection.connect(served.url, tmp_path, model="other")
    with pytest.raises(UserError, match="a dialect is one of"):
        connection.connect(served.url, tmp_path, dialect="ollama")
    monkeypatch.setattr(served, "kind", "another")
    with pytest.raises(UserError, match="--dialect names it"):
        connection.connect(served.url, tmp_path)


def test_flags_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, wanted in (
        (["--dialect", "vllm"], "--dialect is for --endpoint"),
        (["--endpoint", "localhost:9", "--prm", "self"], "needs the language model"),
        (["--endpoint", "ftp://x"], "no address of a server"),
    ):
        assert main(["solve", "Compute 1+2.", *flags]) == 2
        assert wanted in capsys.readouterr().err


def test_settings_are_neutral_in_every_dialect() -> None:
    """No field that a server may fill in is left out."""
    ask = dialects.Ask("m", [1], "t", 5, 3, 0.8, ["\n\n"], [0], [1])
    wanted = {
        "vllm": "temperature top_p top_k min_p repetition_penalty presence_penalty "
        "frequency_penalty seed n stop stop_token_ids ignore_eos min_tokens",
        "sglang": "temperature top_p top_k min_p repetition_penalty presence_penalty "
        "frequency_penalty sampling_seed n stop stop_token_ids ignore_eos",
        "llama.cpp": "temperature top_p top_k min_p typical_p repeat_penalty samplers "
        "presence_penalty frequency_penalty dry_multiplier xtc_probability mirostat "
        "top_n_sigma dynatemp_range logit_bias ignore_eos n_cache_reuse seed stop",
        "transformers": "generation_config seed max_tokens",
    }
    for name, fields in wanted.items():
        body = dialects.DIALECTS[name].body(ask)
        assert set(fields.split()) <= set(body.get("sampling_params", body))


def test_mistakes_of_a_user_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for url in ("http://localhost:80a/v1", "http://[::1/v1", "http://"):
        with pytest.raises(UserError, match="no address of a server"):
            client.Client(url)
    for key in ("sk-secret\nsecond", "sk-sécret"):
        monkeypatch.setenv(client.KEY, key)
        with pytest.raises(UserError) as caught:
            client.Client("localhost:9")
        assert "cret" not in str(caught.value)
    monkeypatch.setenv(client.KEY, "sk-secret\n")
    assert client.Client("localhost:9").key == "sk-secret"
    lm, prm = world()
    with Served("vllm", lm) as running:
        policy = endpoint(running)
        policy.vocabulary = 2
        with pytest.raises(UserError, match="serves another model"):
            solve(PROBLEM, policy, prm, 4, proposal=PROPOSAL)


def test_an_error_calls_the_others_back() -> None:
    """And threads do not keep the program."""
    lm, prm = world()
    before = set(threading.enumerate())
    with Served("vllm", lm, slow=0.3) as running:
        running.faults = [400, *["slow"] * 50]
        policy = endpoint(running, in_flight=2)
        with pytest.raises(UserError, match="refuses with 400"):
            solve(PROBLEM, policy, prm, 32, proposal=PROPOSAL)
        asked = len(running.bodies)
        time.sleep(1)
        assert len(running.bodies) <= asked + 2 < 32
    threads = set(threading.enumerate()) - before
    assert all(thread.daemon for thread in threads)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_greedy(kind: str) -> None:
    lm, prm = world()
    with Served(kind, lm) as running:
        options = dict(method="greedy", proposal=GREEDY)
        here = solve([PROBLEM], lm, prm, 1, **options)[0]
        there = solve([PROBLEM], endpoint(running), prm, 1, **options)[0]
        assert there.particles[0].steps == here.particles[0].steps


# A client without a server


def answering(
    *answers: httpx.Response, asked: list[httpx.Request] | None = None
) -> client.Client:
    """A client that gets these answers, one a request."""
    there, left = client.Client("host", pauses=(0.001, 0.001)), list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        if asked is not None:
            asked.append(request)
        return left.pop(0)

    there.own.http = httpx.Client(
        transport=httpx.MockTransport(answer), verify=there.tls
    )
    return there


def test_addresses_are_cut_to_their_root() -> None:
    for url, root in (
        ("host", "http://host"),
        ("localhost:1", "http://localhost:1"),
        ("http://host/v1", "http://host"),
        ("https://host/v1/", "https://host"),
        ("http://host/v1/x//", "http://host/v1/x"),
    ):
        assert client.Client(url).root == root
    for url in ("http://host:0", "file://host", "http:///v1"):
        with pytest.raises(UserError, match="is no address of a server; give one such"):
            client.Client(url)
    for url in ("http://me@host", "http://:secret@host", "http://host?key"):
        with pytest.raises(UserError, match="keys .* into the variable PFREF_API_KEY"):
            client.Client(url)
    assert client.shown("htp://me@secret@host?a?b") == "host"


def test_how_a_client_asks() -> None:
    there = client.Client("host", patience=7)
    assert there.http.timeout == httpx.Timeout(7, connect=client.CONNECT)
    assert "authorization" not in there.http.headers
    assert there.tls.verify_mode == ssl.CERT_REQUIRED
    assert there.pauses == tuple(2**k for k in range(-1, 5))
    asked: list[httpx.Request] = []
    there = answering(httpx.Response(200, json=[1]), asked=asked)
    assert there.get("/x") == [1] and asked[0].url == "http://host/x"
    assert asked[0].extensions["timeout"]["read"] == client.LOOK
    assert (there.retried, there.in_flight, there.peak) == (0, 0, 1)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 599])
def test_answers_that_may_be_others_in_a_while(status: int) -> None:
    there = answering(httpx.Response(status), httpx.Response(200, json=3))
    assert there.get("/x") == 3 and there.retried == 1
    there = answering(*[httpx.Response(status, json={"detail": "busy"})] * 3)
    with pytest.raises(UserError, match=rf"answers {status} \(busy\), after 3 tries;"):
        there.get("/x")


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, "^the server at http://host refuses with 400: str$"),
        (501, "refuses with 501"),
        (401, "wants a key; put it into the variable PFREF_API_KEY"),
        (403, "wants a key; put it into the variable PFREF_API_KEY"),
    ],
)
def test_answers_that_stay(status: int, told: str) -> None:
    there = answering(*[httpx.Response(status)] * 2)
    with pytest.raises(UserError, match=told):
        there.post("/x", {}, len)
    if status in (401, 403):
        with pytest.raises(UserError, match=told):
            there.get("/x")
    else:
        assert there.get("/x") is None
    assert there.retried == 0


def test_an_address_that_sends_elsewhere() -> None:
    moved = httpx.Response(307, headers={"location": "http://other/v1?key=1"})
    with pytest.raises(UserError, match="sends to http://other/v1; give that address"):
        answering(moved).get("/x")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (dict(json={"error": {"message": "no\nmore"}}), "no"),
        (dict(json={"error": "no"}), "no"),
        (dict(json={"detail": "no"}), "no"),
        (dict(json={"other": 1}), "{'other': 1}"),
        (dict(json=["error"]), "['error']"),
        (dict(text=" no sk-own \nmore"), "no *** "),
        (dict(text=""), "str"),
        (dict(text="x" * 400), "x" * 300),
    ],
)
def test_what_a_server_says_of_an_error(
    answer: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PFREF_API_KEY", "sk-own")
    assert client.Client("host").told(httpx.Response(400, **answer)) == told


@pytest.mark.parametrize(("end", "share"), [(min, 0.75), (max, 1.25)])
def test_pauses_before_each_further_try(
    end: Callable[[float, float], float], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", end)
    there, waits = answering(*[httpx.Response(503)] * 3), list[float]()
    there.pauses = (2, 8)
    stopped: Any = SimpleNamespace(wait=waits.append)
    with pytest.raises(UserError, match="answers 503"):
        there.post("/x", {}, len, stopped)
    assert waits == [0, 2 * share, 8 * share]


def test_what_is_stopped_is_not_sent() -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(UserError, match="^stopped$"):
        answering().post("/x", {}, len, stopped)


def test_requests_in_flight_are_counted() -> None:
    there, nobody = answering(), SimpleNamespace()
    there.count(in_flight=2)
    there.count(in_flight=1)
    there.count(in_flight=-2)
    assert (there.in_flight, there.peak, there.retried) == (1, 3, 0)
    model = SimpleNamespace(client=there)
    assert client.in_flight(model, nobody) == "up to 3 requests in flight"
    assert client.in_flight(model, model) == "up to 2 requests in flight"
    assert client.in_flight(nobody) == ""


def test_a_pool_has_no_more_threads_than_it_may() -> None:
    pool = client.Pool(2)
    futures = [pool.submit(divmod, k, 2) for k in range(5)]
    assert [future.result() for future in futures] == [divmod(k, 2) for k in range(5)]
    assert pool.threads == 2
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()


def test_usual_numbers_are_those_of_the_help() -> None:
    def usual(name: str, *made: Callable[..., Any]) -> set[Any]:
        return {signature(one).parameters[name].default for one in made}

    connects = connection.connect, prm_endpoint.connect
    ends = server.Endpoint, prm_endpoint.RewardEndpoint
    assert usual("in_flight", *connects, *ends) == {64}
    assert usual("patience", *connects, client.Client) == {600}
    assert torch.iinfo(torch.int32).max == server.LARGEST_SEED


# A policy whose server is a list of answers


class Wire:
    """Instead of a client: what it was asked, and what it answers."""

    root = "http://host"

    def __init__(self, *replies: Reply) -> None:
        self.replies, self.bodies = list(replies), list[dict[str, Any]]()

    def post(self, path: str, body: dict[str, Any], *_: Any) -> Reply:
        self.bodies.append(body)
        return self.replies.pop(0)


def wired(kind: str, *replies: Reply) -> Any:
    lm, _ = world()
    wire: Any = Wire(*replies)
    return server.Endpoint(
        wire,
        dialects.DIALECTS[kind],
        "tiny",
        lm.tokenizer,
        [END],
        lm.context,
        lm.vocabulary,
    )


def test_a_step_in_several_requests() -> None:
    policy = wired("vllm", Reply([B], "b", "length"), Reply([A], "a", "length"))
    paths = policy.start([[A]], 1, dataclasses.replace(PROPOSAL, max_step_tokens=2))
    found = policy.step(paths.work, [A], "", 7, seed=server.LARGEST_SEED - 1)
    assert found.tokens == [B, A] and found.truncated and found.log_ratio == 0
    first, second = policy.client.bodies
    assert [first["prompt"], second["prompt"]] == [[A], [A, B]]
    assert [first["max_tokens"], second["max_tokens"]] == [2, 1]
    assert [first["seed"], second["seed"]] == [server.LARGEST_SEED - 1, 0]
    assert first["stop"] == ["\n\n"] and paths.work.calls == 2


def test_a_step_of_a_server_that_takes_text() -> None:
    policy = wired(
        "transformers", Reply(None, "\n\n", "stop"), Reply(None, "b", "length")
    )
    found = step(policy, [A, B])
    assert found.tokens == [DELIMITER, B] and found.truncated and not found.ended
    assert [body["prompt"] for body in policy.client.bodies] == ["ab", "ab\n\n"]
    assert DELIMITER in policy.start([[A]], 1, PROPOSAL).work.closers
    fixed = dataclasses.replace(PROPOSAL, step_tokens=2)
    assert policy.start([[A]], 1, fixed).work.closers == []


def test_a_server_that_writes_nothing() -> None:
    told = "at http://host stopped without a token; is it vllm. --dialect names"
    with pytest.raises(UserError, match=told):
        step(wired("vllm", Reply([], "", "end")), [A])


def test_tokens_of_a_text() -> None:
    policy = wired("transformers")
    flight = policy.start([[A]], 1, PROPOSAL).work
    for text, why, wanted in (
        ("", "stop", [END]),
        ("", "length", []),
        ("b<e>", "stop", [B, END]),
        ("\n\nb", "stop", [DELIMITER, B, END]),
    ):
        assert policy.tokens_of(flight, Reply(None, text, why)) == wanted
    assert policy.tokens_of(flight, Reply([A, B], "", "stop")) == [A, B]
    with pytest.raises(UserError, match="serves another model"):
        policy.tokens_of(flight, Reply([policy.vocabulary], "", "stop"))


def test_where_steps_of_a_fixed_length_end() -> None:
    policy = wired("vllm")
    fixed = dataclasses.replace(PROPOSAL, step_tokens=2)
    flight = policy.start([[A]], 1, fixed).work
    assert policy.first_step(flight, [A]) == ([A], False)
    assert policy.first_step(flight, [A, DELIMITER, B]) == ([A, DELIMITER], True)
    assert policy.first_step(flight, [END, B]) == ([END], True)


def test_a_step_has_the_room_that_is_left() -> None:
    line = Reply([A, DELIMITER], "a\n\n", "stop")
    policy = wired("vllm", line, line)
    long = dataclasses.replace(PROPOSAL, max_step_tokens=50, max_tokens=20)
    paths = policy.start([[A] * 9], 1, long)
    assert paths.shape == (1, 1) and paths.log_p.isnan().tolist() == [True]
    for context in (12, 64):
        policy.context = context
        policy.extend(paths, torch.tensor([True]), generators(0, 1))
    assert [body["max_tokens"] for body in policy.client.bodies] == [3, 18]
    assert paths.tokens == [(A, DELIMITER) * 2]


def test_a_forced_step_that_fills_its_room_is_cut() -> None:
    policy = wired("vllm")
    short = dataclasses.replace(PROPOSAL, max_tokens=4)
    paths = policy.start([[A]], 1, short)
    for truncated in (False, True):
        forced = {0: [A, DELIMITER, B, DELIMITER]}
        policy.extend(paths, torch.tensor([True]), generators(0, 1), forced)
        assert paths.truncated.tolist() == [truncated]
    assert paths.tokens == [(A, DELIMITER, B, DELIMITER)] and paths.work.calls == 0


def test_a_population_waits_for_no_other() -> None:
    """The first one's request is not answered before the second has two steps."""
    policy, late = wired("vllm"), threading.Event()

    def post(path: str, body: dict[str, Any], *_: Any) -> Reply:
        if body["prompt"][0] == B:
            late.wait(5)
        return Reply([A, DELIMITER], "a\n\n", "stop")

    policy.client.post = post
    paths, sources = policy.start([[B], [A]], 2, PROPOSAL), generators(0, 2)
    everyone = torch.ones(4, dtype=torch.bool)
    for _ in range(2):
        done = policy.extend(paths, everyone, sources)
        assert done.tolist() == [False, True] and not late.is_set()
    late.set()
    only = torch.tensor([True, True, False, False])
    assert policy.extend(paths, only, sources).tolist() == [True, False]
    step = (A, DELIMITER)
    assert paths.tokens == [step, step, step * 2, step * 2]


def test_a_prompt_is_as_the_template_has_it() -> None:
    policy = wired("vllm")
    assert policy.device == torch.device("cpu")
    policy.tokenizer = tokenizer_of()
    policy.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ more }}"
    )
    policy.template_args = dict(more="bb")
    assert policy.prompt("a", "b") == [B, A, B, B]
    with pytest.raises(UserError, match="the model's context 64, which leaves no room"):
        policy.prompt("a" * 62)


def test_a_text_that_a_servers_tokenizer_reads_as_the_prompt() -> None:
    policy = wired("transformers")
    assert wired("vllm").text_of([A, B]) == ""
    assert policy.text_of([A, B]) == "ab"
    policy.tokenizer = tokenizer_of()
    policy.tokenizer.bos_token = "a"  # and it begins every text
    policy.tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="a $0", special_tokens=[("a", A)]
    )
    assert policy.text_of([A, B]) == "b"
    with pytest.raises(UserError, match="transformers takes text only.* otherwise; "):
        policy.text_of([B, A])
