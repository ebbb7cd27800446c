"""Models by name, and what a user reads when a name is wrong: one sentence, soon."""

import json
import shutil
import time
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
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

from pfref import LanguageModel, RewardModel, UserError
from pfref.loading import (
    HUB_SECONDS,
    SHIPPED,
    context_of,
    first_line,
    is_hub_id,
    load_tokenizer,
    load_weights,
    locate,
    place_of,
)
from pfref.supported import refuse_layers, refuse_readers, rope_types

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


def test_what_a_folder_and_a_file_are_loaded_by(folder: Path) -> None:
    where = dict(pretrained_model_name_or_path=str(folder), local_files_only=True)
    assert locate(folder) == locate(str(folder)) == where
    assert place_of(where) == str(folder)
    file = folder / "model.gguf"
    file.touch()
    where = dict(pretrained_model_name_or_path=str(folder), gguf_file="model.gguf")
    assert locate(file) == where and place_of(where) == str(file)


def test_which_names_are_the_hubs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "model").mkdir(parents=True)
    for name in ("a", "a/", "/b", "a/b/c", "./b", ".a/b", "~/b", "own/model"):
        assert not is_hub_id(name), name
    assert is_hub_id("a/b") and is_hub_id("own/other")
    with pytest.raises(UserError, match="there is no model at small; give"):
        locate("small")  # minimath-small without its first word


def test_an_adapter_that_does_not_name_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, "is an adapter of another model and no model by itself")


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


@pytest.mark.parametrize("json_file", [True, False])
@pytest.mark.parametrize("gguf", [True, False])
def test_which_class_reads_a_tokenizer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, json_file: bool, gguf: bool
) -> None:
    """What lies beside a .gguf file may be another model's."""
    for name in ("AutoTokenizer", "PreTrainedTokenizerFast"):
        told = SimpleNamespace(from_pretrained=lambda name=name, **where: (name, where))
        monkeypatch.setattr(f"transformers.{name}", told)
    where: dict[str, Any] = dict(pretrained_model_name_or_path=str(tmp_path))
    where |= dict(gguf_file="m.gguf") if gguf else {}
    if json_file:
        (tmp_path / "tokenizer.json").touch()
    fast = json_file and not gguf
    name = "PreTrainedTokenizerFast" if fast else "AutoTokenizer"
    assert load_tokenizer(where) == (name, where)


class Factory:
    """Instead of a transformers class: notes what it is asked for."""

    def __init__(self, missing: tuple[str, ...] = (), error: Exception | None = None):
        self.missing, self.error = missing, error

    def from_pretrained(self, **asked: Any) -> tuple[Any, dict[str, Any]]:
        self.asked = asked
        if self.error:
            raise self.error
        model = AutoModelForCausalLM.from_config(asked["config"]).train()
        return model, dict(missing_keys=self.missing)


def loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, factory: Any, **where: str
) -> Any:
    """By `load_weights`, of a tiny model."""
    config = Qwen2Config(**SHAPE)
    there = SimpleNamespace(from_pretrained=lambda **_: config)
    monkeypatch.setattr("transformers.AutoConfig", there)
    where["pretrained_model_name_or_path"] = str(folder)
    return load_weights(factory, where, CPU, "float16")


def test_what_is_asked_of_transformers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from transformers.utils import logging

    before, factory = logging.get_verbosity(), Factory()
    logging.set_verbosity(said := logging.INFO)
    model = loaded(tmp_path, monkeypatch, factory)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    asked = factory.asked
    assert isinstance(asked.pop("config"), Qwen2Config)
    usual: dict[str, Any] = dict(
        pretrained_model_name_or_path=str(tmp_path),
        dtype=torch.float16,
        attn_implementation="pfref",
        output_loading_info=True,
    )
    assert asked == usual | dict(use_safetensors=True)
    loaded(tmp_path, monkeypatch, factory, gguf_file="m.gguf")
    asked = factory.asked
    del asked["config"]
    assert asked == usual | dict(gguf_file="m.gguf")
    assert logging.get_verbosity() == said
    logging.set_verbosity(before)


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        (Factory(("b", "a")), "lacks weights, among them a; download it again"),
        (Factory(error=UserError("as it is")), "^as it is$"),
        (
            Factory(error=ImportError("no\nmore")),
            "no Run `pip install gguf accelerate`",
        ),
        (Factory(error=ValueError("odd\nmore")), "does not load: odd$"),
        (
            Factory(error=ValueError("does not support an attention implementation")),
            "^/.* has an architecture whose attention takes no masks of pfref's; take "
            "a model of another one, such as Llama's or Qwen's$",
        ),
    ],
)
def test_what_goes_wrong_in_transformers_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, factory: Factory, told: str
) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity()
    with pytest.raises(UserError, match=told):
        loaded(tmp_path, monkeypatch, factory)
    assert logging.get_verbosity() == before


def test_layers_and_positions_by_either_name() -> None:
    text = SimpleNamespace(layers_block_type=["mamba", "attention", "full_attention"])
    config = SimpleNamespace(get_text_config=lambda: text)
    with pytest.raises(UserError, match="^m has layers of kind attention, mamba, and"):
        refuse_layers(config, "m")
    found = rope_types(
        SimpleNamespace(
            rope_parameters=dict(full_attention=dict(rope_type="yarn"), theta=1.0),
            rope_scaling=dict(type="linear"),
        )
    )
    assert found >= {"yarn", "linear"}
    assert not rope_types(SimpleNamespace()) & {"longrope"}


@pytest.mark.parametrize(
    ("kinds", "writes"),
    [
        (["Qwen2ForCausalLM"], True),
        (["GPT2LMHeadModel"], True),
        (["Qwen2_5_VLForConditionalGeneration"], True),
        ([], True),  # nothing is told
        (None, True),
        (["Qwen2ForProcessRewardModel"], False),
        (["Qwen2ForPrmModel"], False),
        (["Qwen2Model"], True),  # a body, whose head may be tied
        (["LlamaForTokenClassification"], False),
        (["GemmaForSequenceClassification"], False),
    ],
)
def test_reward_models_are_no_policies(kinds: list[str] | None, writes: bool) -> None:
    config = SimpleNamespace(architectures=kinds)
    if writes:
        refuse_readers(config, "m")
    else:
        with pytest.raises(UserError, match="which judges text and writes none"):
            refuse_readers(config, "m")


def test_the_shipped_reward_model_is_no_policy() -> None:
    with pytest.raises(UserError, match="give it as --prm"):
        LanguageModel.load("minimath-prm")


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError("\none\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


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


@pytest.mark.parametrize("reached", [True, False])
def test_what_the_hub_is_asked(
    monkeypatch: pytest.MonkeyPatch, folder: Path, reached: bool
) -> None:
    asked = list[tuple[str, dict[str, Any]]]()

    def info(_: Any, hub_id: str, **options: Any) -> None:
        asked.append((hub_id, options))
        if not reached:
            raise ConnectionError

    def fetch(hub_id: str, **options: Any) -> str:
        asked.append((hub_id, options))
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert locate("a/b", "v1")["pretrained_model_name_or_path"] == str(folder)
    (_, first), (_, second) = asked
    assert [hub_id for hub_id, _ in asked] == ["a/b"] * 2
    assert first == dict(revision="v1", timeout=HUB_SECONDS)
    assert "*.safetensors" in second.pop("allow_patterns")
    only_here = {} if reached else dict(local_files_only=True)
    assert second == dict(revision="v1") | only_here


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


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
@pytest.mark.parametrize("text", ["{bad", "[]"])
def test_a_damaged_file_of_a_model_is_told(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match="cannot read|not load|adapter|config.json"):
        RewardModel.load(tmp_path)
