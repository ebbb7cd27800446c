"""Models by name, and what a user reads when a name is wrong: one sentence, soon."""

import json
import shutil
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
)

from pfref import LanguageModel, UserError
from pfref.loading import (
    SHIPPED,
    context_of,
    load_tokenizer,
    load_weights,
    locate,
)

CPU = torch.device("cpu")
SHAPE: dict[str, Any] = dict(
    vocab_size=134,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
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


def test_a_broken_gguf_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF, but not really")
    refused(tmp_path / "model.gguf", "model.gguf")


def test_a_folder_without_weights_or_with_pickled_ones(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "no weights as safetensors")
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    refused(folder, "reads no pickled ones .* --prm-revision, often refs/pr/")


def test_an_adapter_alone(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "Qwen/Qwen2.5-0.5B"})
    )
    refused(tmp_path, "is an adapter of Qwen/Qwen2.5-0.5B .* merge it into its base")


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


def saved(folder: Path, config: PretrainedConfig) -> dict[str, Any]:
    """A random model of that shape in the folder."""
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return locate(folder)


def test_windows_beside_full_attention_are_taken(folder: Path) -> None:
    config = Qwen2Config(
        use_sliding_window=True, sliding_window=8, max_window_layers=1, **SHAPE
    )
    assert set(config.layer_types) == {"full_attention", "sliding_attention"}
    model = load_weights(AutoModelForCausalLM, saved(folder, config), CPU)
    assert context_of(model.config) == 32768  # a window bounds nothing
    narrow = MistralConfig(sliding_window=8, **SHAPE)
    model = load_weights(AutoModelForCausalLM, saved(folder, narrow), CPU)
    assert context_of(model.config) == narrow.max_position_embeddings > 8


@pytest.mark.parametrize("kind", ["linear_attention", "conv", "chunked_attention"])
def test_layers_that_no_cache_of_ours_holds_are_refused(
    folder: Path, kind: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    layers = ["full_attention"] * (config["num_hidden_layers"] - 1) + [kind]
    config |= {"model_type": "qwen2", "layer_types": layers}
    (folder / "config.json").write_text(json.dumps(config))
    match = "full_attention only|layers of kind " + kind + ".*--endpoint"
    refused(folder, match)


def test_positions_that_depend_on_the_batch_are_refused(folder: Path) -> None:
    scaling = {
        "rope_type": "longrope",
        "long_factor": [2.0] * 4,
        "short_factor": [1.0] * 4,
        "original_max_position_embeddings": 64,
    }
    config = Phi3Config(
        rope_scaling=scaling, pad_token_id=0, max_position_embeddings=128, **SHAPE
    )
    with pytest.raises(UserError, match="longrope positions"):
        load_weights(AutoModelForCausalLM, saved(folder, config), CPU)


@pytest.mark.parametrize("kind", [BloomConfig, FalconConfig])
def test_attention_of_its_own_is_refused(
    folder: Path, kind: type[PretrainedConfig]
) -> None:
    config = kind(
        vocab_size=134, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(UserError, match="whose attention takes no masks"):
        load_weights(AutoModelForCausalLM, saved(folder, config), CPU)


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
    asked = []

    def cached(hub_id: str, local_files_only: bool, revision: str | None, **_) -> str:
        asked.append((hub_id, revision))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    assert LanguageModel.load("somebody/model").vocabulary == 134
    assert locate("somebody/model", "refs/pr/4")["local_files_only"]
    assert asked == [("somebody/model", None), ("somebody/model", "refs/pr/4")]


@pytest.mark.parametrize("weights", [True, False])
def test_what_is_fetched_from_the_hub(monkeypatch, folder: Path, weights: bool) -> None:
    """All that a model may need, and no pickle and no code."""
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    wanted: list[str] = []

    def fetch(hub_id: str, revision: str, allow_patterns: list[str]) -> str:
        wanted.extend(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    locate("somebody/model", "main", weights)
    files = ["config.json", "merges.txt", "tokenizer.model", "chat_template.jinja"]
    files += ["model-00001-of-00002.safetensors"] * weights
    for name in files:
        assert any(fnmatch(name, pattern) for pattern in wanted), name
    for name in ["pytorch_model.bin", "modeling_own.py", "model.pt"]:
        assert not any(fnmatch(name, pattern) for pattern in wanted), name
    assert weights == any(fnmatch("model.safetensors", p) for p in wanted)


def test_a_revision_that_is_not_there(monkeypatch, folder: Path) -> None:
    no_hub(monkeypatch, RevisionNotFoundError.__new__(RevisionNotFoundError))
    with pytest.raises(UserError, match="no revision 'v9' on the hub"):
        locate("somebody/model", "v9")
    for name in (folder, "minimath-small"):
        with pytest.raises(UserError, match="has no revision 'v9'; leave"):
            locate(name, "v9")


def test_an_unreachable_hub_answers_within_seconds(monkeypatch) -> None:
    """A real call to a port at which nobody listens."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    refused("nobody/nothing-of-this-name", "hub cannot be reached")
    assert time.monotonic() - began < 30
