"""How servers are asked for a step: every sampling field spelled out, so that none is
filled from a server's defaults, and how their answers are read.

A field left out is filled in by the server: vLLM takes a checkpoint's recommended
values (Qwen2.5-Instruct: top_p 0.8, repetition penalty 1.05), llama.cpp those of the
.gguf file or its own (top_k 40, top_p 0.95, min_p 0.05), transformers top_k 50. Then
particles are not drawn from the model, and no weight corrects it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import UserError
from .settings import Settings

ELSEWHERE = (
    "the policy is behind an endpoint, which {what}; load it in this process with "
    "--model, or leave {option} out"
)
END, LENGTH, STOP = "end", "length", "stop"


@dataclass(frozen=True)
class Ask:
    """One step of one particle, or the rest of one."""

    model: str
    ids: list[int]  # the prompt and what was written
    text: str  # the same, for servers that take no ids
    tokens: int  # at most
    seed: int
    temperature: float
    stop: list[str]  # the delimiter, or nothing
    ends: list[int]  # tokens that end a solution
    closers: list[int]  # tokens that may complete the delimiter


@dataclass(frozen=True)
class Reply:
    """What a server wrote: its tokens, or its text where it gives none; and why it
    stopped: by an end token, which is then the last of `tokens`, at the limit, or
    otherwise.
    """

    tokens: list[int] | None
    text: str
    why: str


@dataclass(frozen=True)
class Dialect:
    """How a kind of server is spoken to.

    path     after the server's root
    ids      does it take and give token ids?
    body     what is posted; reply: what comes back, KeyError if a field is missing
    promise  what the same seeds give
    spare    tokens of its context that it will not fill
    """

    name: str
    path: str
    ids: bool
    body: Callable[[Ask], dict[str, Any]]
    reply: Callable[[dict[str, Any]], Reply]
    promise: str
    spare: int = 0


ONE_BY_ONE = (
    "the same seeds give the same particles as long as the server computes the same "
    "logits, which in a busy server depends on the batch"
)
NEUTRAL = dict(top_p=1.0, min_p=0.0, presence_penalty=0.0, frequency_penalty=0.0)


def reason(why: str, which: Any) -> str:
    """Why it stopped, of "length" or "stop", and in that case at what: a text, or an
    end token, which has its id or nothing.
    """
    if why == "length":
        return LENGTH
    if why != "stop":
        raise KeyError(f"finish_reason {why!r}")
    return STOP if isinstance(which, str) else END


def vllm_body(ask: Ask) -> dict[str, Any]:
    return NEUTRAL | dict(
        model=ask.model,
        prompt=ask.ids,
        max_tokens=ask.tokens,
        seed=ask.seed,
        temperature=ask.temperature,
        top_k=0,
        repetition_penalty=1.0,
        n=1,
        min_tokens=0,
        ignore_eos=False,
        stop=ask.stop,
        stop_token_ids=ask.ends,
        include_stop_str_in_output=True,
        add_special_tokens=False,
        skip_special_tokens=True,
        return_token_ids=True,
    )


def vllm_reply(answer: dict[str, Any]) -> Reply:
    choice = answer["choices"][0]
    why = reason(choice["finish_reason"], choice["stop_reason"])
    return Reply(choice["token_ids"], choice["text"], why)


def sglang_body(ask: Ask) -> dict[str, Any]:
    sampling = NEUTRAL | dict(
        max_new_tokens=ask.tokens,
        sampling_seed=ask.seed,
        temperature=ask.temperature,
        top_k=-1,
        repetition_penalty=1.0,
        n=1,
        min_new_tokens=0,
        ignore_eos=False,
        stop=ask.stop,
        stop_token_ids=ask.ends,
        no_stop_trim=True,
        skip_special_tokens=True,
    )
    return dict(input_ids=ask.ids, sampling_params=sampling)


def sglang_reply(answer: dict[str, Any]) -> Reply:
    finish = answer["meta_info"]["finish_reason"]
    stop = finish["matched"] if finish["type"] == "stop" else None
    if stop == "NaN happened":  # an end token then stands for one that was not drawn
        raise KeyError("a token: its logits are NaN")
    why = reason(finish["type"], stop)
    return Reply(answer["output_ids"], answer["text"], why)


def llama_body(ask: Ask) -> dict[str, Any]:
    """`n_cache_reuse` would shift keys and values to other positions, which only comes
    near the model's logits. Without `response_fields` it sends the prompt back as text.
    """
    return NEUTRAL | dict(
        model=ask.model,
        prompt=ask.ids,
        n_predict=ask.tokens,
        seed=ask.seed,
        temperature=ask.temperature,
        samplers=["temperature"],
        top_k=0,
        typical_p=1.0,
        top_n_sigma=-1.0,
        repeat_penalty=1.0,
        dry_multiplier=0.0,
        xtc_probability=0.0,
        dynatemp_range=0.0,
        mirostat=0,
        ignore_eos=False,
        logit_bias=[],
        stop=ask.stop,
        return_tokens=True,
        cache_prompt=True,
        n_cache_reuse=0,
        response_fields=["tokens", "content", "stop_type", "truncated"],
    )


def llama_reply(answer: dict[str, Any]) -> Reply:
    """Its text is without the stop's, which the tokens have."""
    why = {"eos": END, "limit": LENGTH, "word": STOP}[answer["stop_type"]]
    if answer["truncated"]:
        raise UserError(
            "llama.cpp's context is full, and it has cut the solution or forgotten its "
            "beginning; start it with a larger --ctx-size, or give a smaller "
            "--max-tokens"
        )
    return Reply(answer["tokens"], answer["content"], why)


def transformers_body(ask: Ask) -> dict[str, Any]:
    """Its stop texts fail with many tokenizers, so it stops at every token that may
    complete the delimiter; if it did not, another request goes on. At its limit it
    says "length" even of an end token, so the limit is one token further.
    """
    sampling = dict(
        do_sample=ask.temperature > 0,
        top_k=0,
        top_p=1.0,
        repetition_penalty=1.0,
        max_new_tokens=ask.tokens + 1,
        eos_token_id=ask.ends + ask.closers,
        pad_token_id=ask.ends[0],
    )
    if ask.temperature > 0:
        sampling["temperature"] = ask.temperature
    return dict(
        model=ask.model,
        prompt=ask.text,
        seed=ask.seed,
        max_tokens=ask.tokens + 1,
        generation_config=json.dumps(sampling),
    )


def transformers_reply(answer: dict[str, Any]) -> Reply:
    """It does not say at which token it stopped: the text tells."""
    choice = answer["choices"][0]
    why = LENGTH if choice["finish_reason"] == "length" else STOP
    return Reply(None, choice["text"], why)


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("vllm", "/v1/completions", True, vllm_body, vllm_reply, ONE_BY_ONE),
        Dialect(
            "sglang",
            "/generate",
            True,
            sglang_body,
            sglang_reply,
            "seeds count only if the server runs with --enable-deterministic-inference",
            spare=6,  # it refuses a prompt that is longer
        ),
        Dialect(
            "llama.cpp",
            "/completion",
            True,
            llama_body,
            llama_reply,
            ONE_BY_ONE,
            spare=1,  # at its last token it says that the context is full
        ),
        Dialect(
            "transformers",
            "/v1/completions",
            False,
            transformers_body,
            transformers_reply,
            "seeds are the server's one seed, so only requests one by one "
            "(--in-flight 1) repeat; texts are tokenised anew at every step",
        ),
    )
}

OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}


def check(settings: Settings) -> None:
    """Raises UserError for what no server can do."""
    if settings.proposal.target:
        what = "draws from its temperature and gives no weights for another target"
        option = "--target-temperature and --target-power"
        raise UserError(ELSEWHERE.format(what=what, option=option))
    if settings.choose == "confidence":
        what = "does not tell how likely its tokens were"
        option = "--choose confidence"
        raise UserError(ELSEWHERE.format(what=what, option=option))
