"""Where steps end: a search in bytes, whatever the tokens are."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pfref.loading import load_tokenizer, locate
from pfref.randomness import generator
from pfref.stepping import (
    BLANK,
    advance,
    byte_alphabet,
    closers,
    complete_state,
    match_table,
    token_bytes,
)
from tests.test_prompts import byte_level, metaspace

DELIMITERS = ["\n\n", "abab", "aab", "--", ".", "\n## Step", "。", "é\n"]


def word_level(pieces: list[str], decoder: Any) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel({p: k for k, p in enumerate(pieces)}, pieces[0]))
    raw.pre_tokenizer = pre_tokenizers.Split("\0", "isolated")
    if decoder is not None:
        raw.decoder = decoder
    raw.add_special_tokens([AddedToken("<e>", special=True)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<e>", clean_up_tokenization_spaces=False
    )


def state_after(
    tokenizer: PreTrainedTokenizerFast, names: list[str], delimiter: str
) -> int:
    """The table's state after tokens given by name."""
    table, state = match_table(tokenizer, len(tokenizer), delimiter), BLANK
    ids = tokenizer.convert_tokens_to_ids(names)
    assert all(k is not None for k in ids)
    for k in ids:
        state = int(table[state, k])
    return state


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_state_is_complete_exactly_when_the_text_holds_the_delimiter(
    delimiter: str,
) -> None:
    """White space at the text's start aside.

    Random pieces, cut anywhere, also inside characters.
    """
    rng, wanted = generator("table", delimiter), delimiter.encode()
    pieces = ["a", "b", "ab", "ba", "\n", " ", "-", "x--", ".", "x.", "\n\n", "aba"]
    parts = [p.encode() for p in pieces] + [b".\n\nb", b"", b"\n#", b"# Step", b"\n##"]
    parts += [bytes([byte]) for byte in "é ".encode()]
    parts += [wanted, wanted[:1], wanted[1:], wanted[:2], wanted[2:]]
    complete = 0
    for _ in range(300):
        state, text = BLANK, b""
        for k in torch.randint(len(parts), (12,), generator=rng).tolist():
            text += parts[k]
            state = advance(state, parts[k], wanted)
            found = wanted in text.lstrip()
            assert (state == complete_state(delimiter)) == found
            complete += found
    assert complete


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_table_covers_the_vocabulary_and_the_padded_rows_of_the_head(
    delimiter: str,
) -> None:
    wanted, complete = delimiter.encode(), complete_state(delimiter)
    for tokenizer in (byte_level(), metaspace()):
        size = len(tokenizer) + 5
        table, pieces = (
            match_table(tokenizer, size, delimiter),
            token_bytes(tokenizer, size),
        )
        assert table.shape == (complete + 1, size) and table.dtype == torch.int64
        for token, piece in enumerate(pieces):
            assert table[:, token].tolist() == [
                advance(state, piece, wanted) for state in range(complete + 1)
            ]
        assert (table[:, -5:] == torch.arange(complete + 1)[:, None]).all()
        assert (table[complete] == complete).all()


def test_a_space_between_two_newlines_is_no_blank_line() -> None:
    """Metaspace: decoded alone, the mark for a space is nothing."""
    tokenizer = metaspace()
    newline = "<0x0A>"
    end = complete_state("\n\n")
    assert state_after(tokenizer, ["a", newline, newline], "\n\n") == end
    assert state_after(tokenizer, ["a", newline, "▁", newline], "\n\n") == 2
    assert state_after(tokenizer, ["a", newline, "▁a"], "\n a") == complete_state(
        "\n a"
    )


def test_a_delimiter_of_several_byte_tokens() -> None:
    for tokenizer in (metaspace(), byte_level()):
        for delimiter in ("。", "\n\u2003", "🜁"):
            ids = tokenizer("an" + delimiter, add_special_tokens=False)["input_ids"]
            table, state = match_table(tokenizer, len(tokenizer), delimiter), BLANK
            for k in ids:
                assert state != complete_state(delimiter)
                state = int(table[state, k])
            assert state == complete_state(delimiter)


def test_special_tokens_add_nothing_and_added_ones_their_text() -> None:
    tokenizer = byte_level()
    pieces = token_bytes(tokenizer, len(tokenizer))
    assert pieces[tokenizer.convert_tokens_to_ids("<think>")] == b"<think>"
    assert pieces[tokenizer.convert_tokens_to_ids("<|im_end|>")] == b""
    assert pieces[tokenizer.convert_tokens_to_ids("ĊĊ")] == b"\n\n"
    spaced = byte_level(extra="two words")
    added = spaced.convert_tokens_to_ids("two words")
    assert token_bytes(spaced, len(spaced))[added] == b"two words"


@pytest.mark.parametrize(
    "decoder, pieces, added",
    [
        (decoders.Fuse(), ["a", "b", "\n\n"], [b"a", b"b", b"\n\n"]),
        (decoders.Metaspace(), ["a", "▁b", "b"], [b"a", b" b", b"b"]),
        (decoders.WordPiece(cleanup=False), ["a", "##b", "b"], [b" a", b"b", b" b"]),
        (decoders.BPEDecoder(suffix="</w>"), ["a</w>", "b", "a"], [b"a", b"b", b"a"]),
        (None, ["a", "b", "."], [b" a", b" b", b" ."]),
    ],
)
def test_other_decoders(decoder: object, pieces: list[str], added: list[bytes]) -> None:
    tokenizer = word_level(pieces, decoder)
    assert token_bytes(tokenizer, 6) == [*added, b"", b"", b""]


def test_spaces_before_a_point_stay() -> None:
    """Though a tokenizer takes them away when it decodes."""
    tokenizer = word_level(["a", "b", "."], None)
    tokenizer.clean_up_tokenization_spaces = True
    assert token_bytes(tokenizer, 3) == [b" a", b" b", b" ."]


REAL = ["qwen2.5-coder-0.5b-instruct", "smollm2-135m-instruct"]


@pytest.mark.weights
@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers_fast_and_byte_for_byte(name: str) -> None:
    tokenizer = load_tokenizer(locate(Path(os.environ["PFREF_WEIGHTS"]) / name))
    size = len(tokenizer) + 200
    for delimiter in ("\n\n", "\n## Step"):
        began = time.perf_counter()
        match_table(tokenizer, size, delimiter)
        assert time.perf_counter() - began < 2
    pieces = token_bytes(tokenizer, size)
    text = "So \\boxed{😀🜁½𝛼}.\n\n\tif x:  y = “π”  \n## Step 2 <tool_call> é\u00a0。"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(pieces[k] for k in ids) == text.encode()


def test_the_byte_alphabet_is_the_one_of_byte_level_tokenizers() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(byte_alphabet()) == set(ByteLevel.alphabet())
    assert sorted(byte_alphabet().values()) == list(range(256))
    # A control character, the space, a letter, and the soft hyphen, in GPT-2's letters.
    assert [byte_alphabet()[c] for c in "\u0100\u0120a\u0143"] == [0, 32, 97, 173]


def test_tokens_that_can_close_a_step() -> None:
    tokenizer = byte_level()
    table = match_table(tokenizer, len(tokenizer), "\n\n")
    names = {tokenizer.convert_ids_to_tokens(k) for k in closers(table)}
    assert names == {"Ċ", "ĊĊ", ".ĊĊ"}
    assert match_table(tokenizer, 0, "\n\n").shape == (4, 0)
