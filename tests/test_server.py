"""A policy behind an endpoint: the distribution is that of the model in this process,
whatever the server's defaults; and every fault is a retry or one clear line.
"""

import dataclasses
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pfref import client, connection, dialects, server, solve
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
    world,
)
from tests.served import Served

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


@pytest.mark.parametrize("kind", LONG)
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
    A, B = 2, 3
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
    monkeypatch.setenv(client.KEY, "sk-secret")
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


def test_what_a_server_cannot_do_is_refused() -> None:
    lm, prm = world()
    with Served("vllm", lm) as running:
        policy = endpoint(running)
        for options in (
            dict(choose="confidence"),
            dict(proposal=dataclasses.replace(PROPOSAL, target_power=2.0)),
            dict(proposal=dataclasses.replace(PROPOSAL, target_temperature=2.0)),
        ):
            with pytest.raises(UserError, match="endpoint"):
                solve(PROBLEM, policy, prm, 2, **options)
        with pytest.raises(UserError, match="endpoint"):
            policy.listen([1])


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
