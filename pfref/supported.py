"""Which models pfref runs, told by their configuration, before weights are read."""

from typing import Any

from .errors import UserError

LAYERS = {"full_attention", "sliding_attention"}  # kinds that pfref's caches hold
READERS = ("Reward", "Prm", "PRM", "Classification")  # in their classes' names


def refuse_layers(config: Any, place: str) -> None:
    """Raises UserError for a model whose layers the caches cannot hold, or whose result
    depends on what else is in its batch.
    """
    text = config.get_text_config()
    listed = [
        getattr(text, name, None) for name in ("layer_types", "layers_block_type")
    ]
    kinds = {kind for kinds in listed for kind in kinds or ()}
    if others := kinds - LAYERS:
        raise UserError(
            f"{place} has layers of kind {', '.join(sorted(others))}, and pfref runs "
            "full_attention and sliding_attention only; serve such a model and give "
            "--endpoint"
        )
    if "longrope" in rope_types(text):
        raise UserError(
            f"{place} has longrope positions, which change with the longest text of a "
            "batch, so that a problem's particles would depend on its neighbours; take "
            "a model with other positions"
        )


def refuse_readers(config: Any, place: str) -> None:
    """Raises UserError for a model that reads and does not write."""
    kinds = config.architectures or []
    if any(word in kind for kind in kinds for word in READERS):
        raise UserError(
            f"{place} is a {kinds[0]}, which judges text and writes none; give it as "
            "--prm, and a language model as --model"
        )


def rope_types(config: Any) -> set[str]:
    """The kinds of rotary positions, of which each kind of layer may have its own."""
    found = set()
    for name in ("rope_parameters", "rope_scaling"):
        settings = getattr(config, name, None) or {}
        for part in [settings, *settings.values()]:
            if isinstance(part, dict):
                found.add(str(part.get("rope_type", part.get("type"))))
    return found
