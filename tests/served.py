"""Servers that speak as vLLM, SGLang and llama.cpp do, over the enumerable world, with
defaults that are not neutral, as theirs are not. How they answer was compared with real
servers (vLLM 0.32, llama.cpp's build 11434) and with SGLang 0.5.23's sources.

    with Served("vllm", lm) as server: connect(server.url, ...)

`faults` are taken one a request: a status to answer with, "cut" for half an answer,
"empty" for one without its fields, "slow" for one that comes too late.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import torch

from pfref.lm import LanguageModel
from pfref.randomness import generator

OWNED = {"vllm": "vllm", "sglang": "sglang", "llama.cpp": "llamacpp"}
PATHS = {"/v1/completions": "vllm", "/generate": "sglang", "/completion": "llama.cpp"}
# What these servers take for a field that is left out (fewer tokens are kept here,
# since the world has four).
DEFAULTS = dict(top_k=2, temperature=0.7)
CONTEXT, LONGEST = 64, "max_model_len"  # tokens, and what vLLM and SGLang call them
# SGLang refuses any other (its SamplingParams).
SGLANG = """max_new_tokens stop stop_token_ids stop_regex temperature top_p top_k min_p
frequency_penalty presence_penalty repetition_penalty min_new_tokens n beam_width
json_schema regex ebnf structural_tag ignore_eos skip_special_tokens
spaces_between_special_tokens no_stop_trim stream_interval logit_bias sampling_seed
custom_params watermark"""


class Served:
    """A server on a free port of this machine, while the block lasts."""

    def __init__(self, kind: str, lm: LanguageModel, slow: float = 0.0) -> None:
        self.kind, self.lm, self.slow = kind, lm, slow
        self.context = CONTEXT  # tokens of one request
        self.faults: list[Any] = []
        self.dead_after: int | None = None  # so many requests
        self.cap = 64  # tokens that it writes, whatever it is asked for
        self.also_ends: list[int] = []  # tokens that stop it, and end nothing here
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.known: dict[tuple[int, ...], torch.Tensor] = {}
        self.lock = threading.Lock()
        handler = type("Handler", (Handler,), {"served": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> torch.Tensor:
        """(V,) float64 after `ids`, computed once."""
        key = tuple(ids)
        if key not in self.known:
            passed = self.lm.model(input_ids=torch.tensor([ids]))
            self.known[key] = passed.logits[0, -1].double()
        return self.known[key]

    def write(self, ids: list[int], a: dict[str, Any]) -> tuple[list[int], str, Any]:
        """Tokens, why they stop (end, length or word), and at what."""
        source, tokens = generator("served", a["seed"]), list[int]()
        while len(tokens) < a["limit"]:
            logits = self.logits(ids + tokens) / (a["temperature"] or 1e-9)
            if 0 < a["top_k"] < len(logits):
                logits[logits < logits.topk(a["top_k"]).values[-1]] = -torch.inf
            p = torch.softmax(logits, -1)
            tokens.append(int(torch.multinomial(p, 1, generator=source)))
            if tokens[-1] in a["ends"]:
                return tokens, "end", tokens[-1]
            text = self.lm.tokenizer.decode(tokens)
            for word in a["stop"]:
                if word in text:
                    return tokens, "word", word
        return tokens, "length", None

    def answer(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        own = body.get("sampling_params", body)
        values = DEFAULTS | {k: v for k, v in own.items() if v is not None}
        values["limit"] = own.get(
            {"vllm": "max_tokens", "sglang": "max_new_tokens"}.get(kind, "n_predict"),
            16,
        )
        values["limit"] = min(values["limit"], self.cap)
        values["seed"] = own.get("sampling_seed", own.get("seed", 0))
        values["stop"] = own.get("stop", [])
        values["ends"] = [*sorted(self.lm.end_tokens), *self.also_ends]
        values["ends"] += own.get("stop_token_ids", [])
        if kind == "llama.cpp" and own.get("samplers") != ["temperature"]:
            values["top_k"] = 2
        ids = body["input_ids"] if kind == "sglang" else body["prompt"]
        tokens, why, what = self.write(ids, values)
        text = self.lm.tokenizer.decode(tokens, skip_special_tokens=True)
        keep = {"vllm": "include_stop_str_in_output", "sglang": "no_stop_trim"}
        if why == "word" and not own.get(keep.get(kind, ""), False):
            text = text[: text.index(what)]  # llama.cpp never sends it
        if kind == "vllm":
            choice = dict(
                text=text,
                token_ids=tokens if own.get("return_token_ids") else None,
                finish_reason="length" if why == "length" else "stop",
                stop_reason=what if why == "word" else None,
            )
            return dict(object="text_completion", choices=[choice])
        if kind == "sglang":
            if unknown := set(own) - {*SGLANG.split()}:
                return dict(error=dict(message=f"unexpected argument {unknown}"))
            finish = dict(type="length" if why == "length" else "stop", matched=what)
            meta = dict(finish_reason=finish, completion_tokens=len(tokens))
            return dict(text=text, output_ids=tokens, meta_info=meta)
        full = len(ids) + len(tokens) >= self.context
        stop = {"end": "eos", "length": "limit", "word": "word"}[why]
        said = dict(
            content=text,
            tokens=tokens if own.get("return_tokens") else [],
            stop_type="limit" if full and why == "word" else stop,
            truncated=full,
            prompt=self.lm.tokenizer.decode(ids),
            generation_settings=values,
        )
        wanted = own.get("response_fields") or said
        return {name: said[name] for name in wanted}


class Handler(BaseHTTPRequestHandler):
    served: Served
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body together: apart, the second waits for an answer

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            return self.say({"error": {"message": "not found"}}, 404)
        kind, most = self.served.kind, self.served.context
        entry: dict[str, Any] = dict(id="tiny", owned_by=OWNED.get(kind, "somebody"))
        entry |= {"meta": {"n_ctx": most}} if kind == "llama.cpp" else {LONGEST: most}
        self.say(dict(object="list", data=[entry]))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        s = self.served
        with s.lock:
            s.bodies.append(body)
            s.headers.append(dict(self.headers))
            fault = s.faults.pop(0) if s.faults else None
        if isinstance(fault, int):
            said = f"no, {self.headers.get('Authorization')}\nsecond line"
            return self.say({"error": {"message": said}}, fault)
        if s.dead_after is not None:
            s.dead_after -= 1
            if s.dead_after < 0:  # as if it were killed: no answer, no connection
                self.close_connection = True
                return
        if fault == "slow":
            time.sleep(s.slow)
        with s.lock:
            answer = s.answer(PATHS[self.path], body)
        if fault == "empty":
            answer = {"object": "text_completion"}
        self.say(answer, cut=fault == "cut")

    def say(self, what: Any, status: int = 200, cut: bool = False) -> None:
        data = json.dumps(what).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
        except (BrokenPipeError, ConnectionResetError):
            return
        if cut:
            self.close_connection = True
