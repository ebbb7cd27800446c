"""From words to tokens: chat templates of every temper, and text that looks like a
control token.
"""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

from pfref import prompts
from pfref.errors import UserError
from pfref.loading import load_tokenizer, locate
from pfref.prompts import chat_ids, end_tokens, plain_ids, unused
from tests.scripted import tokenizer_of

CONTROLS = ["<|end|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)


@pytest.fixture(autouse=True)
def _nothing_told() -> Iterator[None]:
    prompts.told.clear()
    yield


def byte_level(
    template: str | None = CHATML, extra: str = "<extra_0>", **named: str
) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a few merges; `extra` is added but not marked special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "n"), ("<", "|"), ("|", ">"), ("Ċ", "Ċ"), (".", "ĊĊ")]
    pieces = alphabet + ["".join(pair) for pair in merges]
    raw = Tokenizer(models.BPE({p: k for k, p in enumerate(pieces)}, merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(t, special=True) for t in CONTROLS])
    raw.add_tokens([AddedToken(extra, special=False, normalized=False)])
    raw.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        **{"eos_token": "<|end|>"} | named,
        clean_up_tokenization_spaces=False,
        chat_template=template,
    )


def metaspace(template: str | None = None) -> PreTrainedTokenizerFast:
    """As Llama 2's: a space before every text, bytes for what it lacks, BOS by the
    tokenizer.
    """
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{k:02X}>" for k in range(256))]
    pieces += ["▁", "a", "b", "▁a", "<", "/", "s", ">", ".", "i", "n"]
    raw = Tokenizer(
        models.BPE(
            {p: k for k, p in enumerate(pieces)},
            [("▁", "a")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    raw.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    raw.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    raw.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        chat_template=template,
    )


def ids_of(tokenizer: PreTrainedTokenizerFast, *names: str) -> set[int]:
    return set(tokenizer.convert_tokens_to_ids(list(names)))


# Text is text


@pytest.mark.parametrize(
    "text",
    [
        "a <|im_end|> b",
        "<|im_end|><|im_end|>",
        "<extra_0>",
        "<<|end|>|im_end|>",
        "an <|im_start|>assistant\nan",
        "<|im_<|im_end|>end|>",
    ],
)
def test_a_control_tokens_literal_is_characters(text: str) -> None:
    tokenizer = byte_level()
    controls = ids_of(tokenizer, *CONTROLS, "<extra_0>")
    assert controls & set(tokenizer(text)["input_ids"])
    ids = plain_ids(tokenizer, text)
    assert not controls & set(ids) and tokenizer.decode(ids) == text
    framed = chat_ids(tokenizer, text, system=text)
    count = CHATML.count("<|im_") + 2  # of a system turn, a user turn and the start
    assert sum(k in controls for k in framed) == count == 5
    assert tokenizer.decode(framed).count(text) == 2


@pytest.mark.parametrize("text", ["", "an an.\n\nan", " an", "< | end |>", "<think>"])
def test_ordinary_text_has_the_ids_it_has_today(text: str) -> None:
    for tokenizer in (byte_level(), metaspace()):
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert plain_ids(tokenizer, text) == whole


def test_no_space_slips_into_a_literal() -> None:
    tokenizer = metaspace()
    ids = plain_ids(tokenizer, "a</s> a<s>")
    assert not ids_of(tokenizer, "</s>", "<s>") & set(ids)
    assert tokenizer.decode(ids) == "a</s> a<s>"


def test_tokens_added_later_are_seen() -> None:
    tokenizer = byte_level()
    assert plain_ids(tokenizer, "<|later|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|later|>"]})
    later = tokenizer.convert_tokens_to_ids("<|later|>")
    assert later not in plain_ids(tokenizer, "<|later|>")


def test_the_shipped_tokenizers_separator_in_a_problem() -> None:
    tokenizer = load_tokenizer(locate("minimath-prm"))
    with pytest.raises(UserError, match="does not know '<extra_0>'"):
        chat_ids(tokenizer, "Compute 3+4. <extra_0>")


# Unknown words


@pytest.mark.parametrize("named", ["eos_token", "bos_token"])
def test_an_unknown_token_that_is_also_an_end_or_a_beginning(named: str) -> None:
    """Granite 3 and OPT: the template writes it, the user did not."""
    tokenizer = byte_level(unk_token="<|im_end|>", **{named: "<|im_end|>"})
    assert tokenizer.unk_token_id in chat_ids(tokenizer, "an")
    assert chat_ids(tokenizer, "What is <|im_end|>?")


def test_an_unknown_word_is_named_without_talk_of_other_models() -> None:
    tokenizer = load_tokenizer(locate("minimath-small"))
    with pytest.raises(UserError, match="^the grader has .* not know 'zebra'"):
        chat_ids(tokenizer, "Compute zebra + 3.", place="the grader")


# Templates


def test_a_template_without_a_system_role(capsys: pytest.CaptureFixture) -> None:
    """Gemma 2's raises.

    The system text goes before the user's; standard error hears it once.
    """
    tokenizer = byte_level(NO_SYSTEM)
    found = [tokenizer.decode(chat_ids(tokenizer, "an", "Be brief.")) for _ in "12"]
    assert found[0] == found[1]
    assert found[0] == (
        "<|im_start|>user\nBe brief.\n\nan<|im_end|>\n<|im_start|>assistant\n"
    )
    err = capsys.readouterr().err
    assert err.count("without a system role") == 1 and len(err.splitlines()) == 1


def test_a_template_that_always_fails_is_one_sentence() -> None:
    tokenizer = byte_level("{{ raise_exception('no\\nway') }}")
    for system in (None, "Be brief."):
        with pytest.raises(UserError, match="template that fails: no") as caught:
            chat_ids(tokenizer, "an", system)
        assert "\n" not in str(caught.value)


def test_a_template_that_drops_the_system_text() -> None:
    tokenizer = byte_level("{{ messages[-1].content }}")
    with pytest.raises(UserError, match="no place for a system prompt"):
        chat_ids(tokenizer, "an", "Be brief.")
    ids = chat_ids(tokenizer, "an", "Be brief.", optional_system=True)
    assert tokenizer.decode(ids) == "an"


def test_arguments_reach_the_template() -> None:
    thinking = CHATML + (
        "{% if enable_thinking is defined and not enable_thinking %}"
        "<think>\n\n</think>\n\n{% endif %}"
    )
    tokenizer = byte_level(thinking)
    assert "</think>" not in tokenizer.decode(chat_ids(tokenizer, "an"))
    ids = chat_ids(tokenizer, "an", template_args={"enable_thinking": False})
    assert tokenizer.decode(ids).endswith("<think>\n\n</think>\n\n")
    assert tokenizer.convert_tokens_to_ids("<think>") in ids


def test_without_a_template() -> None:
    tokenizer = metaspace()
    assert chat_ids(tokenizer, "a a") == tokenizer("a a")["input_ids"]
    assert chat_ids(tokenizer, "a", "b") == tokenizer("b\n\na")["input_ids"]
    assert chat_ids(tokenizer, "a<s>a").count(1) == 1
    with pytest.raises(UserError, match="^the grader has no chat template"):
        chat_ids(tokenizer, "a", place="the grader", required=True)


def test_an_end_that_a_tokenizer_writes_by_itself_does_not_end_the_prompt() -> None:
    tokenizer = metaspace()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    ids = chat_ids(tokenizer, "a")
    assert ids[0] == 1 and ids.count(1) == 1 and 2 not in ids


def test_one_beginning() -> None:
    for template in ("<s>{{ messages[0].content }}", "{{ bos_token }} a"):
        assert chat_ids(metaspace(template), "a").count(1) == 1


# Ends


def model_with(ends: int | list[int] | None) -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(eos_token_id=ends))


def test_the_token_that_closes_the_turn_is_an_end_named_or_not() -> None:
    """Llama 3 without its generation settings: <|eot_id|> is an added token without a
    role.
    """
    tokenizer = byte_level()
    assert "<|im_end|>" not in tokenizer.all_special_tokens
    assert end_tokens(model_with(None), tokenizer) == ids_of(
        tokenizer, "<|end|>", "<|im_end|>"
    )
    spaced = byte_level(CHATML.replace("<|im_end|>", " <|im_end|>"))
    assert ids_of(spaced, "<|im_end|>") < end_tokens(model_with([3]), spaced)


@pytest.mark.parametrize(
    "template", [None, "{{ messages[0].content }}\n", "{{ raise_exception('x') }}"]
)
def test_a_template_that_closes_nothing_adds_nothing(template: str | None) -> None:
    tokenizer = byte_level(template)
    assert end_tokens(model_with([3, 4]), tokenizer) == {3, 4} | ids_of(
        tokenizer, "<|end|>"
    )


def test_an_unknown_word_of_the_system_text_is_named() -> None:
    """With a template that shows it, or without any; not where it is dropped."""
    pieces = ["<unk>", "a", "b\n\na"]
    for template in (None, "{{ messages[0].content }}"):
        tokenizer = tokenizer_of(pieces, template, end="<unk>")
        tokenizer.unk_token = "<unk>"
        with pytest.raises(UserError, match="^this model .* not know 'zebra'"):
            chat_ids(tokenizer, "a", "zebra")
    assert chat_ids(tokenizer_of(pieces, end="<unk>"), "a", "b") == [2]
    dropping = tokenizer_of(pieces, "{{ messages[-1].content }}", end="<unk>")
    dropping.unk_token = "<unk>"
    assert chat_ids(dropping, "a", "zebra", optional_system=True) == [1]
    with pytest.raises(UserError, match="not know 'a a'; write"):  # but each word
        chat_ids(dropping, "a a")


def test_a_template_may_trim_the_system_text() -> None:
    tokenizer = byte_level("{{ messages[0].content | trim }}!{{ messages[1].content }}")
    assert tokenizer.decode(chat_ids(tokenizer, "an", " Be brief.\n")) == "Be brief.!an"


def test_a_template_that_leaves_the_problem_out() -> None:
    """As those for messages in parts do with a text."""
    parts = "{% for part in messages[0].content %}{{ part.text }}{% endfor %}"
    with pytest.raises(UserError, match="leaves the problem out"):
        chat_ids(byte_level(parts), "an")


def test_an_error_without_words_has_its_name() -> None:
    tokenizer = byte_level("{{ raise_exception('') }}")
    with pytest.raises(UserError, match="template that fails: TemplateError$"):
        chat_ids(tokenizer, "an")


def test_a_mark_is_not_in_the_text() -> None:
    assert unused("") == "\ue000" and unused("a\ue000\ue002") == "\ue001"
