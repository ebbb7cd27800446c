"""Where reward models come from: heads beside a body, rows of a language model's head,
families by name; and what is refused, each in one sentence.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

import pfref.families
from pfref import LanguageModel, RewardModel, UserError
from pfref.families import FAMILIES, family_of, trl
from pfref.readers import QUESTION, Rendered
from tests.enumerable import FAMILY, tokenizer_of, world
from tests.hub_layouts import (
    QWEN_CHAT,
    SIZES,
    language_model,
    llama_tokenizer,
    mistral_tokenizer,
    qwen_tokenizer,
    seeded,
    token_classifier,
    with_score,
    with_value_head,
)

ONE = torch.tensor([True])


@pytest.mark.parametrize("tied", [False, True])
def test_two_rows_of_the_head_are_read_and_no_more(
    tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language_model(tmp_path, llama_tokenizer(), tied)
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    whole: list[str] = []

    class Watched:
        def __init__(self, file: Path, kind: str) -> None:
            self.inner = safe_open(file, kind)

        def __enter__(self) -> "Watched":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def keys(self) -> list[str]:
            return [*self.inner.keys()]

        def get_slice(self, name: str) -> object:
            return self.inner.get_slice(name)

        def get_tensor(self, name: str) -> torch.Tensor:
            whole.append(name)
            return self.inner.get_tensor(name)

    monkeypatch.setattr(pfref.families, "safe_open", Watched)
    prm = RewardModel.load(tmp_path, dtype="float32", family="versaprm")
    assert whole == [] and prm.head.net.weight.shape == (2, SIZES["hidden_size"])
    assert not hasattr(prm.body, "lm_head")


MODELS = {
    "granite": (GraniteForCausalLM, GraniteConfig, dict(logits_scaling=4.0)),
    "cohere": (CohereForCausalLM, CohereConfig, dict(logit_scale=0.25)),
    "gemma 2": (
        Gemma2ForCausalLM,
        Gemma2Config,
        dict(final_logit_softcapping=2.0, head_dim=8, sliding_window=16),
    ),
    "phi": (PhiForCausalLM, PhiConfig, dict(tie_word_embeddings=False)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_judges_itself_by_the_logits_it_has(name: str) -> None:
    """Scaled, bounded or with a bias: Yes against No in its own logits, one body."""
    kind, settings, options = MODELS[name]
    tokenizer = qwen_tokenizer()
    special = dict(eos_token_id=2, pad_token_id=0, bos_token_id=None)
    config = settings(vocab_size=len(tokenizer), **SIZES | special | options)
    lm = LanguageModel(seeded(lambda: kind(config)), tokenizer)
    prm = RewardModel.judging(lm)
    assert prm.body is lm.model.base_model
    judgement, steps = prm.start(["the sum of 12 and 34"], 1), ("so we\n\n", "have 46")
    prm.extend(judgement, ONE, [steps[:1]])
    prm.extend(judgement, ONE, [steps])
    roles = ("user", "the sum of 12 and 34"), ("assistant", "so we\n\nhave 46")
    said = [{"role": r, "content": text} for r, text in (*roles, ("user", QUESTION))]
    text = tokenizer.apply_chat_template(
        said, tokenize=False, add_generation_prompt=True
    )
    logits = lm.model(input_ids=torch.tensor([tokenizer.encode(text)])).logits[0, -1]
    yes, no = tokenizer.convert_tokens_to_ids(["Yes", "No"])
    right = float(logits[yes] - logits[no])
    assert prm.log_odds(judgement).tolist() == pytest.approx([right], abs=1e-4)
    assert abs(right) > 1e-3


def test_the_template_arguments_reach_the_question(tmp_path: Path) -> None:
    tokenizer = qwen_tokenizer(QWEN_CHAT + "{% if quick %}so{% endif %}")
    lm = LanguageModel(language_model(tmp_path, tokenizer), tokenizer, {"quick": True})
    ids = RewardModel.judging(lm).prompt("the sum")
    assert ids == lm.prompt("the sum") and tokenizer.decode(ids).endswith("so")
    whole, _ = RewardModel.judging(lm).render("the sum", ["12"])
    assert tokenizer.decode(whole).endswith("so")  # where Yes or No comes next


def test_a_model_without_a_template_is_asked_in_the_text(tmp_path: Path) -> None:
    tokenizer = mistral_tokenizer()
    lm = LanguageModel(language_model(tmp_path, tokenizer), tokenizer)
    ids, _ = RewardModel.judging(lm).render("the sum", ["so we\n\n", "have"])
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert text == f"the sum so we\n\nhave\n\n{QUESTION}\n"


def test_families_by_architecture_and_by_name() -> None:
    assert family_of(["Qwen2ForProcessRewardModel"], None, None) is FAMILIES["qwen"]
    assert family_of(["Qwen2ForPrmModel"], None, None) is FAMILIES["skywork"]
    assert family_of(["Qwen2ForRewardModel"], None, None) is FAMILIES["universal"]
    named = family_of(["Qwen2ForProcessRewardModel"], "reasonflux", None)
    assert named is FAMILIES["reasonflux"]
    for kind in ("Qwen2", "Llama", "Mistral"):
        assert (
            family_of([kind + "ForTokenClassification"], None, None) is FAMILIES["trl"]
        )
        assert family_of([kind + "ForCausalLM"], None, None) is None
    for wrong, message in (
        ((None, "\n\n"), "family trl only"),
        (("qwen", "\n"), "family trl only"),
        (("trl", ""), "not empty"),
        (("shepherd", None), "no family 'shepherd'.*math-shepherd"),
    ):
        with pytest.raises(UserError, match=message):
            family_of(["Qwen2ForProcessRewardModel"], *wrong)


def refused(folder: Path, message: str, **named: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        RewardModel.load(folder, **named)
    assert "\n" not in str(caught.value)


def test_a_language_model_must_be_named(tmp_path: Path) -> None:
    language_model(tmp_path, llama_tokenizer())
    refused(tmp_path, "is not a process reward model that pfref knows; name its family")
    refused(tmp_path, "lacks 'ки' as one token", family="math-shepherd")
    refused(tmp_path, "has no reward head", family="trl")
    for file in tmp_path.glob("*.safetensors"):
        tensors = load_file(file)
        tensors.pop("lm_head.weight", None)
        save_file(tensors, file, {"format": "pt"})
    refused(tmp_path, "no language model's head", family="rlhflow")


def test_a_folder_without_a_template(tmp_path: Path) -> None:
    with_score(tmp_path, "Qwen2ForProcessRewardModel", 2)
    qwen_tokenizer(None).save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    refused(tmp_path, "has no chat template, which the family qwen reads")


def test_a_chat_that_leaves_words_out(tmp_path: Path) -> None:
    language_model(tmp_path, llama_tokenizer())
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    refused(tmp_path, "leaves out what was said", family="rlhflow")


def test_a_begin_token_that_the_recipe_adds(tmp_path: Path) -> None:
    with_value_head(tmp_path)
    prm = RewardModel.load(tmp_path, dtype="float32")
    assert prm.prompt("the sum")[0] == prm.tokenizer.bos_token_id
    qwen_tokenizer().save_pretrained(tmp_path)
    refused(tmp_path, "no token that begins a text")


def test_what_is_no_reward_model(tmp_path: Path) -> None:
    """An adapter alone, pickled weights alone, a .gguf file, a head that is missing."""
    token_classifier(tmp_path, qwen_tokenizer())
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "judge.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "judge.gguf", "is a .gguf file, and a reward model's head")
    wide = tensors | {"score.weight": torch.zeros(3, tensors["score.weight"].shape[1])}
    wide.pop("score.bias", None)
    save_file(wide, tmp_path / "model.safetensors", {"format": "pt"})
    refused(tmp_path, "a head with 3 outputs")
    del tensors["score.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    refused(tmp_path, r"has no reward head \(score\.\*\)")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    refused(tmp_path, "no weights as safetensors.*--prm-revision")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    shutil.copy(tmp_path / "tokenizer.json", adapter)
    base = {"base_model_name_or_path": "Qwen/Qwen2.5-7B"}
    (adapter / "adapter_config.json").write_text(json.dumps(base))
    refused(adapter, "adapter of Qwen/Qwen2.5-7B.*merge it", family="trl")


def test_a_revision_goes_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def locate(name: str, revision: str | None) -> dict:
        asked.append((name, revision))
        raise UserError("offline")

    monkeypatch.setattr(pfref.prm, "locate", locate)
    with pytest.raises(UserError, match="offline"):
        RewardModel.load("Skywork/PRM", revision="refs/pr/4")
    assert asked == [("Skywork/PRM", "refs/pr/4")]


def test_minimaths_language_model_cannot_be_asked() -> None:
    with pytest.raises(UserError, match="lacks 'No' as one token"):
        RewardModel.judging(LanguageModel.load("minimath-small"))


def test_a_prompt_that_a_solution_changes_is_refused() -> None:
    """A tokenizer may join more of a problem's end than a family holds back for it."""
    _, prm = world()

    def render(tokenizer: object, problem: str, steps: list[str]) -> Rendered:
        return ([2, 2, 4], [2]) if steps else ([2, 3], [])

    family = replace(FAMILY, render=render)
    changed = RewardModel(prm.body, prm.head, prm.tokenizer, family)
    judgement = changed.start(["abba"], 1)
    with pytest.raises(UserError, match="reads the problem otherwise.*'abba'"):
        changed.extend(judgement, ONE, [("a",)])


def test_a_separator_must_be_one_token() -> None:
    _, prm = world()
    with pytest.raises(UserError, match="lacks '<extra_0>' as one token"):
        RewardModel(prm.body, prm.head, tokenizer_of(), FAMILY)


def test_a_separator_that_the_text_has_already_is_not_doubled() -> None:
    tokenizer = qwen_tokenizer()
    ids, places = trl("###").render(tokenizer, "the sum", ["so we###", "46###\n\n"])
    assert tokenizer.decode(ids) == "the sumso we###46###" and places[1] == len(ids) - 1
