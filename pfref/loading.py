"""Find a model by name: a shipped one, a folder, a .gguf file or a hub id.

Safetensors only, no remote code.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .errors import UserError, reading
from .hardware import best_device as best_device
from .hardware import best_dtype as best_dtype
from .packing import pack
from .supported import refuse_layers, refuse_readers

SHIPPED = Path(__file__).parent / "minimath"
PROBES = Path(__file__).parent / "probes"
HUB_SECONDS = 10  # how long an unreachable hub may keep a user waiting
OWN_ATTENTION = (
    "{place} has an architecture whose attention takes no masks of pfref's; take a "
    "model of another one, such as Llama's or Qwen's"
)


def locate(
    name: str | Path, revision: str | None = None, weights: bool = True
) -> dict[str, Any]:
    """Arguments for `from_pretrained`: `minimath-small` and its like are shipped.

    Without `weights`, what lies beside them will do. `revision` is a branch, tag or
    commit of a hub id. Raises UserError if there is no model of that name, or none that
    can be read.
    """
    text, path = str(name), Path(name).expanduser()
    shipped = SHIPPED / text.removeprefix("minimath-")
    if text.startswith("minimath-") and shipped.is_dir():
        path = shipped
    if revision is not None and path.exists():
        raise UserError(
            f"{name} is on this machine and has no revision {revision!r}; leave the "
            "revision out, or give a hub id"
        )
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(
                f"{name} is a file, but not a .gguf file; give a model folder, a .gguf "
                "file or a hub id"
            )
        return dict(pretrained_model_name_or_path=str(path.parent), gguf_file=path.name)
    if path.is_dir():
        return folder_of(path, str(name), weights)
    if not is_hub_id(text):
        raise UserError(
            f"there is no model at {name}; give a model folder, a .gguf file, a hub id "
            "such as Qwen/Qwen2.5-1.5B-Instruct, or minimath-small"
        )
    return folder_of(Path(download(text, revision, weights)), text, weights)


def probe_file(name: str | Path) -> Path | None:
    """The file of a probe: a shipped one by its name, or a .safetensors file."""
    shipped, path = PROBES / f"{name}.safetensors", Path(name).expanduser()
    if Path(name).name == str(name) and shipped.is_file():
        return shipped
    return path if path.suffix == ".safetensors" and not path.is_dir() else None


def is_hub_id(name: str) -> bool:
    """Has `name` the form owner/model, and is there no folder of that name?"""
    parts = name.split("/")
    return (
        len(parts) == 2
        and all(parts)
        and not name.startswith((".", "~"))
        and not Path(name).exists()
    )


def folder_of(folder: Path, name: str, weights: bool = True) -> dict[str, Any]:
    """The arguments for a folder. Raises UserError if it holds no model to load."""
    adapter = folder / "adapter_config.json"
    if not (folder / "config.json").is_file():
        if adapter.is_file():
            with reading(adapter):
                base = json.loads(adapter.read_text()).get("base_model_name_or_path")
            raise UserError(
                f"{name} is an adapter of {base or 'another model'} and no model by "
                "itself; merge it into its base (peft's merge_and_unload, then "
                "save_pretrained) and give that folder, or give the base"
            )
        raise UserError(
            f"{name} is not a model folder: it has no config.json; give the folder "
            "that save_pretrained or a hub download wrote, or a .gguf file by its name"
        )
    if weights and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{name} holds no weights as safetensors, and pfref reads no pickled ones "
            "(.bin); on the hub another revision may hold them (--revision or "
            "--prm-revision, often refs/pr/...), or convert it with save_pretrained"
        )
    return dict(pretrained_model_name_or_path=str(folder), local_files_only=True)


def download(hub_id: str, revision: str | None = None, weights: bool = True) -> str:
    """The local folder of a hub model, fetched if it is not there yet; without a
    network, the hub's cache.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = ["*.json", "*.txt", "*.model", "*.jinja"]
    wanted += ["*.safetensors"] if weights else []
    try:
        # One question; the download itself would retry for long.
        HfApi().model_info(hub_id, revision=revision, timeout=HUB_SECONDS)
        return snapshot_download(hub_id, revision=revision, allow_patterns=wanted)
    except RevisionNotFoundError as error:
        raise UserError(
            f"{hub_id} has no revision {revision!r} on the hub; give a branch, a tag "
            "or a commit of it"
        ) from error
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise UserError(
            f"the hub has no model {hub_id} that you may read; check the name, or log "
            "in with `hf auth login` and accept its licence"
        ) from error
    except Exception as error:  # the hub client's own, httpx's and the system's errors
        try:
            return snapshot_download(
                hub_id, revision=revision, allow_patterns=wanted, local_files_only=True
            )
        except Exception:
            raise UserError(
                f"{hub_id} is neither a local folder nor in the hub's cache, and the "
                f"hub cannot be reached ({type(error).__name__}); check the name and "
                "the network, or give a local folder"
            ) from error


def place_of(where: dict[str, Any]) -> str:
    """What messages call the model: its folder, or its file."""
    folder = where["pretrained_model_name_or_path"]
    return str(Path(folder) / where["gguf_file"]) if "gguf_file" in where else folder


def load_tokenizer(where: dict[str, Any]) -> Any:
    """As tokenizer.json has it, where there is one: AutoTokenizer may rebuild another
    from the model's type.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    has_json = (
        Path(where["pretrained_model_name_or_path"]) / "tokenizer.json"
    ).is_file() and "gguf_file" not in where
    try:
        return (PreTrainedTokenizerFast if has_json else AutoTokenizer).from_pretrained(
            **where
        )
    except Exception as error:
        raise UserError(
            f"{place_of(where)} has no tokenizer that transformers can load: "
            f"{first_line(error)}"
        ) from error


def load_weights(
    factory: Any,
    where: dict[str, Any],
    device: torch.device,
    dtype: str | torch.dtype | None = None,
) -> Any:
    """`factory.from_pretrained` in evaluation mode, on `device`, with attention that
    takes our masks.

    `dtype` is a torch dtype, its name, or "auto" or None for `best_dtype`'s choice.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    from .attention import NAME

    place = place_of(where)
    safe = {} if "gguf_file" in where else dict(use_safetensors=True)
    before = logging.get_verbosity()
    # A reward head beside the body is reported as unexpected, which it is not.
    logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(**where)
        refuse_layers(config, place)
        if factory is AutoModelForCausalLM:
            refuse_readers(config, place)
        own = None if is_shipped(where) else config
        model, report = factory.from_pretrained(
            **where,
            **safe,
            config=config,
            dtype=best_dtype(dtype, device, own),
            attn_implementation=NAME,
            output_loading_info=True,
        )
    except UserError:
        raise
    except ImportError as error:  # transformers reads .gguf files with these two
        raise UserError(
            f"{place}: {first_line(error)} Run `pip install gguf accelerate`"
        ) from error
    except Exception as error:
        refused = ("support an attention implementation", f"'{NAME}'")
        if any(words in str(error) for words in refused):
            raise UserError(OWN_ATTENTION.format(place=place)) from error
        raise UserError(f"{place} does not load: {first_line(error)}") from error
    finally:
        logging.set_verbosity(before)
    if report["missing_keys"]:
        raise UserError(
            f"{place} lacks weights, among them {sorted(report['missing_keys'])[0]}; "
            "download it again"
        )
    if not getattr(model, "_supports_attention_backend", False):
        raise UserError(OWN_ATTENTION.format(place=place))
    model = model.to(device).eval().requires_grad_(False)
    pack(model)
    return model


def check_known(ids: Sequence[int], rows: int) -> None:
    """Raises UserError for a token beyond the `rows` of the model's embedding."""
    if max(ids, default=0) >= rows:
        raise UserError(
            f"the tokenizer gives the token {max(ids)}, and the model knows {rows}; "
            "they do not belong together, or the model was not resized"
        )


def config_of(where: dict[str, Any]) -> Any:
    """A model's configuration, without its weights. Raises UserError."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(**where)
    except Exception as error:
        raise UserError(
            f"{place_of(where)} does not load: {first_line(error)}"
        ) from error


def context_of(config: Any) -> int:
    """Tokens that a model takes."""
    return config.get_text_config().max_position_embeddings


def is_shipped(where: dict[str, Any]) -> bool:
    return SHIPPED in Path(where["pretrained_model_name_or_path"]).parents


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
