"""Devices and dtypes: what is asked for, or what suits the machine."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from pfref import UserError, hardware
from pfref.hardware import DTYPES, best_device, best_dtype
from pfref.loading import SHIPPED, load_weights, locate

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped small model."""
    return Path(shutil.copytree(SHIPPED / "small", tmp_path / "model"))


def stored_as(folder: Path, dtype: torch.dtype) -> Path:
    model = load_weights(AutoModelForCausalLM, locate(folder), CPU, dtype)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("fast", [True, False])
def test_dtype_is_the_checkpoints_own_where_that_is_fast(
    monkeypatch: pytest.MonkeyPatch, folder: Path, fast: bool
) -> None:
    monkeypatch.setattr(hardware, "cpu_multiplies_bfloat16", lambda: fast)

    def loaded(where: str | Path, dtype: str | torch.dtype | None) -> torch.dtype:
        return load_weights(AutoModelForCausalLM, locate(where), CPU, dtype).dtype

    stored_as(folder, torch.bfloat16)
    assert loaded(folder, "auto") == (torch.bfloat16 if fast else torch.float32)
    assert loaded(folder, None) == loaded(folder, "auto")
    assert loaded(folder, "float32") == loaded("minimath-small", None) == torch.float32
    assert loaded("minimath-small", "bfloat16") == torch.bfloat16
    assert loaded(folder, torch.float64) == torch.float64
    stored_as(folder, torch.float16)
    assert loaded(folder, None) == torch.float32  # no processor is fast in it
    with pytest.raises(UserError, match="no dtype 'int4'; give auto, float32"):
        loaded(folder, "int4")


@pytest.mark.parametrize(
    "major, short", [(7, "float32"), (8, "bfloat16"), (9, "bfloat16")]
)
def test_dtype_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, major: int, short: str
) -> None:
    gpu = torch.device("cuda:1")
    known = {gpu: (major, 0)}.__getitem__
    monkeypatch.setattr(torch.cuda, "get_device_capability", known)
    for own, best in (("bfloat16", short), ("float16", "float16"), (None, short)):
        config = Qwen2Config(dtype=own)
        assert best_dtype("auto", gpu, config) == DTYPES[best]
    assert best_dtype("auto", gpu, None) == torch.float32  # shipped


def test_the_processor_is_asked_without_torch_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Older torch versions do not tell what a processor can do; Linux does."""
    found = hardware.cpu_multiplies_bfloat16()
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    if Path("/proc/cpuinfo").is_file():
        assert hardware.cpu_multiplies_bfloat16() == found


@pytest.mark.parametrize(
    ("flags", "fast"),
    [("fpu avx512_bf16", True), ("amx_bf16 fpu", True), ("fpu avx512f", False)],
)
def test_linux_tells_what_the_processor_can_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, fast: bool
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(hardware, "Path", {"/proc/cpuinfo": info}.__getitem__)
    assert not hardware.cpu_multiplies_bfloat16()  # there is no such file
    info.write_text(f"flags: {flags}\n")
    assert hardware.cpu_multiplies_bfloat16() == fast


@pytest.mark.parametrize(
    ("found", "fast"),
    [
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_f": True}, False),
    ],
)
def test_torch_tells_what_the_processor_can_do(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert hardware.cpu_multiplies_bfloat16() == fast


@pytest.mark.parametrize(
    ("text", "whole", "best"),
    [
        (torch.float16, torch.bfloat16, "float16"),
        (None, torch.float16, "float16"),
        (None, None, "bfloat16"),
        ("float16", None, "float16"),
        ("int8", None, "float32"),
    ],
)
def test_the_text_models_dtype_is_its_own(
    monkeypatch: pytest.MonkeyPatch, text: Any, whole: Any, best: str
) -> None:
    """As a configuration of more than text has it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    inner = SimpleNamespace(dtype=text)
    config = SimpleNamespace(get_text_config=lambda: inner, dtype=whole)
    assert best_dtype("auto", torch.device("cuda"), config) == DTYPES[best]


def test_devices() -> None:
    assert best_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="no device 'abacus'"):
        best_device("abacus")
    for name in ("mps", "meta", "xpu"):
        with pytest.raises(UserError, match=f"not run on the device {name}; give cpu"):
            best_device(name)
    if not torch.cuda.is_available():
        assert best_device(None).type == "cpu"
        with pytest.raises(UserError, match="no CUDA device"):
            best_device("cuda")


def test_the_last_gpu_is_the_number_below_their_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert best_device(None) == best_device("cuda") == torch.device("cuda")
    assert best_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert best_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="the last one is cuda:1"):
        best_device("cuda:2")
