"""Find out what serves at an address, and make a policy of it."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .client import Client
from .dialects import DIALECTS, OWNERS
from .errors import UserError
from .loading import config_of, context_of, load_tokenizer, locate
from .prompts import end_tokens, tell_once
from .server import Endpoint


def connect(
    url: str,
    tokenizer: str | Path,
    model: str | None = None,
    dialect: str | None = None,
    in_flight: int = 64,
    *,
    patience: float = 600,
    revision: str | None = None,
    template_args: dict[str, Any] | None = None,
) -> Endpoint:
    """The policy that is served at `url`, such as http://localhost:8000/v1.

    tokenizer  the same model's name here: a folder, a .gguf file or a hub id. Of it,
               the tokenizer and the configuration are read, and no weights
    model      its name there; None if only one is served
    dialect    vllm, sglang, llama.cpp or transformers; None to find out
    in_flight  requests at once
    patience   seconds for an answer

    Raises UserError if no server answers, or it has no such model.
    """
    from transformers import GenerationConfig

    if dialect is not None and dialect not in DIALECTS:
        known = ", ".join(DIALECTS)
        raise UserError(f"a dialect is one of {known}, and not {dialect!r}")
    if in_flight < 1:
        raise UserError(f"there is at least one request in flight, not {in_flight}")
    where = locate(tokenizer, revision, weights=False)
    own = load_tokenizer(where)
    config = config_of(where)
    try:
        generation = GenerationConfig.from_pretrained(
            where["pretrained_model_name_or_path"]
        )
    except OSError:  # it has none
        generation = None
    settings = SimpleNamespace(config=config, generation_config=generation)
    client = Client(url, patience)
    served = listed(client)
    kind = DIALECTS[dialect or kind_of(client, served)]
    context = context_of(config)
    # transformers may load what it does not list.
    if kind.name == "transformers" and len(served) != 1:
        model = model or str(tokenizer)
    else:
        entry = chosen(served, model, client.root)
        model = entry["id"]
        context = min([context, *(most - kind.spare for most in tokens_taken(entry))])
    tell_once(f"the policy is behind {kind.name}: {kind.promise}")
    return Endpoint(
        client,
        kind,
        model,
        own,
        sorted(end_tokens(settings, own)),
        context,
        max(len(own), config.get_text_config().vocab_size),
        template_args,
        in_flight,
    )


def tokens_taken(entry: dict[str, Any]) -> list[int]:
    """How many tokens of prompt and solution the server holds, where it says so: vLLM
    and SGLang in max_model_len; llama.cpp those of one of its slots.
    """
    meta = entry.get("meta")
    slot = meta.get("n_ctx") if isinstance(meta, dict) else None
    found = (entry.get("max_model_len"), slot)
    return [most for most in found if isinstance(most, int) and most > 0]


def listed(client: Client) -> list[dict[str, Any]]:
    """What the server says of the models that it serves."""
    models = client.get("/v1/models")
    found = models.get("data") if isinstance(models, dict) else None
    return [
        entry
        for entry in (found if isinstance(found, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    ]


def kind_of(client: Client, served: Sequence[dict[str, Any]]) -> str:
    """Which dialect the server speaks, by what it says of itself."""
    for entry in served:
        if kind := OWNERS.get(str(entry.get("owned_by"))):
            return kind
    schema = client.get("/openapi.json")
    paths = schema.get("paths") if isinstance(schema, dict) else None
    if isinstance(paths, dict) and "/load_model" in paths:
        return "transformers"
    raise UserError(
        f"the server at {client.root} does not say what it is; --dialect names it: "
        + ", ".join(DIALECTS)
    )


def chosen(
    served: Sequence[dict[str, Any]], model: str | None, root: str
) -> dict[str, Any]:
    """The entry of a served model."""
    names = [entry["id"] for entry in served]
    if model is None and len(names) == 1:
        return served[0]
    if model in names:
        return served[names.index(model)]
    asked = f"no model {model!r}" if model else f"{len(names)} models"
    told = f"; it serves {', '.join(names[:5])}" if names else ""
    raise UserError(f"the server at {root} has {asked}{told}: name one of them")
