"""Where a model runs and in which numbers: the device, and the dtype that it is fast
in.
"""

from pathlib import Path
from typing import Any

import torch

from .errors import UserError

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def best_device(device: str | torch.device | None) -> torch.device:
    """The one asked for, or else an NVIDIA GPU where there is one.

    Raises UserError if there is no such device, or pfref does not run on it.
    """
    try:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"there is no device {device!r}; give cpu or cuda") from error
    if found.type not in ("cpu", "cuda"):
        raise UserError(f"pfref does not run on the device {found}; give cpu or cuda")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "no CUDA device is available here; leave --device out, or give cpu"
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"there is no device {found}; the last one is "
            f"cuda:{torch.cuda.device_count() - 1}"
        )
    return found


def best_dtype(
    dtype: str | torch.dtype | None, device: torch.device, config: Any = None
) -> torch.dtype:
    """The dtype that is asked for; for None or "auto" the checkpoint's own, where
    `device` multiplies it fast, and float32 else.

    A shipped model has no `config` here: it runs in float32 everywhere. A checkpoint
    that names no dtype, such as a .gguf file's, is taken for bfloat16. Raises UserError
    for a name that is none.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in (None, "auto"):
        if dtype not in DTYPES:
            raise UserError(
                f"there is no dtype {dtype!r}; give auto, {', '.join(DTYPES)}"
            )
        return DTYPES[str(dtype)]
    if config is None:
        return torch.float32
    own = getattr(config.get_text_config(), "dtype", None) or config.dtype
    own = own or torch.bfloat16
    if isinstance(own, str):
        own = DTYPES.get(own, torch.float32)
    return own if own in fast_dtypes(device) else torch.float32


def fast_dtypes(device: torch.device) -> set[torch.dtype]:
    """The short dtypes that the device multiplies faster than float32."""
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return {torch.float16} | ({torch.bfloat16} if major >= 8 else set())
    return {torch.bfloat16} if cpu_multiplies_bfloat16() else set()


def cpu_multiplies_bfloat16() -> bool:
    """Does the processor have AVX512-BF16 or AMX? Asked of torch, else of Linux."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.is_file() else set()
    return bool(words & {"avx512_bf16", "amx_bf16"})
