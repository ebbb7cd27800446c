"""Models by name, and what a user reads when a name is wrong: one sentence, soon."""

import json
import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from pfref import LanguageModel, UserError
from pfref.loading import (
    SHIPPED,
    best_device,
    best_dtype,
    context_of,
    load_tokenizer,
    load_weights,
    locate,
)


def refused(name: str | Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        LanguageModel.load(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped small model."""
    return Path(shutil.copytree(SHIPPED / "small", tmp_path / "model"))


def test_a_shipped_name_and_its_folder_are_the_same_model() -> None:
    ids = torch.tensor([[5, 6, 7]])
    a, b = LanguageModel.load("minimath-small"), LanguageModel.load(SHIPPED / "small")
    assert torch.equal(a.model(input_ids=ids).logits, b.model(input_ids=ids).logits)
    assert (
        a.model.dtype == torch.float32
        and not a.model.training
        and not any(p.requires_grad for p in a.model.parameters())
    )
    assert (
        a.context == 512
        and a.vocabulary == 134
        and a.tokenizer.decode(list(a.end_tokens)) == "<|end|>"
    )


def test_dtype_is_as_asked() -> None:
    assert (
        LanguageModel.load("minimath-small", dtype=torch.float64).model.dtype
        == torch.float64
    )
    assert (
        best_dtype(None, torch.device("cpu")) == torch.float32
        and best_dtype(None, torch.device("cuda")) == torch.bfloat16
    )


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./nothing", "~/nothing-here", "../x/y"]
)
def test_a_missing_folder(name: str) -> None:
    refused(name, "there is no model at")


@pytest.mark.parametrize(
    "name", ["minimath-huge", "nosuchmodel", "a/b/c", "a/", "/", "Qwen/", ""]
)
def test_a_name_that_is_neither_path_nor_hub_id(name: str) -> None:
    refused(name, "there is no model at|is not a model folder")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    refused(tmp_path, "no config.json")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"123")
    refused(tmp_path / "weights.bin", "is a file, but not a .gguf file")


def test_a_broken_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF, but not really")
    refused(tmp_path / "model.gguf", ".")


def test_a_folder_without_weights_or_with_pickled_ones(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "does not load")
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    refused(folder, "does not load")


def test_broken_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"123")
    refused(folder, "does not load")


def test_a_folder_without_a_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    refused(folder, "no tokenizer")


def test_remote_code_is_not_run(folder: Path) -> None:
    """Code beside the weights stays asleep, whatever the configuration asks for."""
    (folder / "evil.py").write_text("raise SystemExit('run')\n")
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "does not load|no tokenizer")


def test_a_window_in_some_layers_is_refused(folder: Path) -> None:
    """The cache looks at everything: a model that must not is refused rather than run as another."""
    shape = dict(
        vocab_size=134,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    windowed = Qwen2Config(
        use_sliding_window=True, sliding_window=8, max_window_layers=1, **shape
    )
    Qwen2ForCausalLM(windowed).save_pretrained(folder)
    with pytest.raises(
        UserError, match="layers of kind full_attention, sliding_attention"
    ):
        load_weights(
            AutoModelForCausalLM, locate(folder), torch.device("cpu"), torch.float32
        )
    Qwen2ForCausalLM(Qwen2Config(**shape)).save_pretrained(folder)
    model = load_weights(
        AutoModelForCausalLM, locate(folder), torch.device("cpu"), torch.float32
    )
    assert context_of(model.config) == 32768  # a window that is not used bounds nothing


def test_the_tokenizer_is_as_its_file_has_it(folder: Path) -> None:
    """AutoTokenizer would give a model of type qwen2 Qwen's own."""
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "qwen2"}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(locate(folder))
    assert (
        len(tokenizer) == 134
        and tokenizer("Compute 3+4")["input_ids"]
        == load_tokenizer(locate("minimath-small"))("Compute 3+4")["input_ids"]
    )


def test_devices() -> None:
    assert best_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="no device 'abacus'"):
        best_device("abacus")
    if not torch.cuda.is_available():
        assert best_device(None).type == "cpu"
        with pytest.raises(UserError, match="no CUDA device"):
            best_device("cuda")


# The hub


def no_hub(monkeypatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no route\nto host"),
        TimeoutError("slow"),
        OSError("offline"),
        ValueError("?"),
    ],
)
def test_an_unreachable_hub(monkeypatch, error: Exception) -> None:
    no_hub(monkeypatch, error)
    refused(
        "nobody/nothing-of-this-name", f"hub cannot be reached .{type(error).__name__}."
    )


@pytest.mark.parametrize("kind", [GatedRepoError, RepositoryNotFoundError])
def test_a_model_that_is_not_there_or_not_yours(
    monkeypatch, kind: type[Exception]
) -> None:
    no_hub(monkeypatch, kind.__new__(kind))
    refused(
        "nobody/nothing-of-this-name",
        "has no model nobody/nothing-of-this-name that you may read",
    )


def test_without_a_network_the_cache_serves(monkeypatch, folder: Path) -> None:
    no_hub(monkeypatch, ConnectionError())
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda hub_id, local_files_only, **_: str(folder),
    )
    assert LanguageModel.load("somebody/model").vocabulary == 134


def test_an_unreachable_hub_answers_within_seconds(monkeypatch) -> None:
    """A real call to a port at which nobody listens."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    refused("nobody/nothing-of-this-name", "hub cannot be reached")
    assert time.monotonic() - began < 30
