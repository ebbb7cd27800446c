"""Find a model by name: a shipped one, a folder, a .gguf file or a hub id. Safetensors only, no remote code."""

from pathlib import Path
from typing import Any

import torch

from .errors import UserError

SHIPPED = Path(__file__).parent / "minimath"
HUB_SECONDS = 10  # how long an unreachable hub may keep a user waiting


def locate(name: str | Path) -> dict[str, Any]:
    """Arguments for `from_pretrained`: `minimath-small` and its like are shipped with the package."""
    text, path = str(name), Path(name).expanduser()
    shipped = SHIPPED / text.removeprefix("minimath-")
    if text.startswith("minimath-") and shipped.is_dir():
        path = shipped
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(
                f"{name} is a file, but not a .gguf file; give a model folder, a .gguf file or a hub id"
            )
        return dict(pretrained_model_name_or_path=str(path.parent), gguf_file=path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(
                f"{name} is not a model folder: it has no config.json; give the folder that "
                "save_pretrained or a hub download wrote"
            )
        return dict(pretrained_model_name_or_path=str(path), local_files_only=True)
    if (
        text.startswith((".", "/", "~"))
        or text.count("/") != 1
        or not all(text.split("/"))
    ):
        raise UserError(
            f"there is no model at {name}; give a model folder, a .gguf file, a hub id such as "
            "Qwen/Qwen2.5-1.5B-Instruct, or minimath-small"
        )
    return dict(pretrained_model_name_or_path=download(text), local_files_only=True)


def download(hub_id: str) -> str:
    """The local folder of a hub model, fetched if it is not there yet; without a network, the hub's cache."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        HfApi().model_info(
            hub_id, timeout=HUB_SECONDS
        )  # one question; the download itself would retry for long
        return snapshot_download(hub_id, allow_patterns=wanted)
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise UserError(
            f"the hub has no model {hub_id} that you may read; check the name, or log in with "
            "`hf auth login` and accept its licence"
        ) from error
    except (
        Exception
    ) as error:  # the hub's client raises its own, httpx's and the system's errors
        try:
            return snapshot_download(
                hub_id, allow_patterns=wanted, local_files_only=True
            )
        except Exception:
            raise UserError(
                f"{hub_id} is neither a local folder nor in the hub's cache, and the hub cannot be reached "
                f"({type(error).__name__}); check the name and the network, or give a local folder"
            ) from error


def load_tokenizer(where: dict[str, Any]) -> Any:
    """As tokenizer.json has it, where there is one: AutoTokenizer may rebuild another from the model's type."""
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
            f"{where['pretrained_model_name_or_path']} has no tokenizer that transformers can load: "
            f"{first_line(error)}"
        ) from error


def load_weights(
    factory: Any, where: dict[str, Any], device: torch.device, dtype: torch.dtype
) -> Any:
    """`factory.from_pretrained` in evaluation mode, on `device`, with attention that takes our masks."""
    safe = {} if "gguf_file" in where else dict(use_safetensors=True)
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # a reward head beside the body is reported as unexpected, which it is not
    try:
        model, report = factory.from_pretrained(
            **where,
            **safe,
            dtype=dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except ImportError as error:  # transformers reads .gguf files with these two
        raise UserError(
            f"{first_line(error)} Run `pip install gguf accelerate`"
        ) from error
    except Exception as error:
        raise UserError(
            f"{where['pretrained_model_name_or_path']} does not load: {first_line(error)}"
        ) from error
    finally:
        logging.set_verbosity(before)
    if report["missing_keys"]:
        raise UserError(
            f"{where['pretrained_model_name_or_path']} lacks weights, among them {sorted(report['missing_keys'])[0]}; "
            "download it again"
        )
    kinds = set(
        getattr(model.config.get_text_config(), "layer_types", None)
        or ["full_attention"]
    )
    if kinds != {"full_attention"}:
        raise UserError(
            f"{where['pretrained_model_name_or_path']} has layers of kind {', '.join(sorted(kinds))}; "
            "pfref's cache handles full attention only"
        )
    return model.to(device).eval().requires_grad_(False)


def context_of(config: Any) -> int:
    """Tokens that a model takes. One window for all layers, as Mistral has, changes nothing up to its length."""
    config = config.get_text_config()
    return min(
        config.max_position_embeddings,
        getattr(config, "sliding_window", None) or config.max_position_embeddings,
    )


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def best_device(device: str | torch.device | None) -> torch.device:
    """The one asked for, or else an NVIDIA GPU where there is one."""
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UserError(f"there is no device {device!r}; give cpu or cuda") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "no CUDA device is available here; leave --device out, or give cpu"
        )
    return found


def best_dtype(dtype: torch.dtype | None, device: torch.device) -> torch.dtype:
    """float32 on a CPU, bfloat16 on an accelerator, unless told."""
    return dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
