"""Where a step ends, decided by lookup on the device: a search for bytes, since a token
may be part of a character.
"""

import json
import re
from typing import Any

import torch
from torch import Tensor

BLANK = 0  # the state at a step's start: nothing but white space so far

# What the parts of a tokenizer's decoder do to one token in the middle of a text.
SIMPLE_DECODERS = {"Replace", "ByteFallback", "Fuse", "Metaspace", "Strip"}
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def match_table(tokenizer: Any, vocabulary: int, delimiter: str) -> Tensor:
    """(states, V) int64: from a state and a token to the next state.

    State BLANK has seen only white space, so a stray delimiter at its start makes no
    empty step. State 1 + k has seen text of which the last k bytes begin the delimiter,
    so a delimiter is found across tokens too. The last is `complete_state`, which
    stays.
    """
    wanted = delimiter.encode()
    complete = complete_state(delimiter)
    after_byte = torch.tensor(
        [
            [advance(state, bytes([byte]), wanted) for byte in range(256)]
            for state in range(complete)
        ]
        + [[complete] * 256]
    )
    pieces = token_bytes(tokenizer, vocabulary)
    lengths = torch.tensor([len(piece) for piece in pieces])
    starts = lengths.cumsum(0) - lengths
    text = torch.tensor(list(b"".join(pieces)), dtype=torch.long)
    table = torch.arange(complete + 1)[:, None].repeat(1, vocabulary)
    for place in range(max(map(len, pieces), default=0)):
        tokens = (lengths > place).nonzero()[:, 0]
        table[:, tokens] = after_byte[table[:, tokens], text[starts[tokens] + place]]
    return table


def closers(table: Tensor) -> list[int]:
    """Tokens that complete the delimiter of a `match_table` from some state."""
    last = len(table) - 1
    return (table[:last] == last).any(0).nonzero()[:, 0].tolist()


def complete_state(delimiter: str) -> int:
    """The state in which the delimiter has been seen whole."""
    return 1 + len(delimiter.encode())


def advance(state: int, piece: bytes, delimiter: bytes) -> int:
    """The state after `piece`."""
    if state == 1 + len(delimiter):
        return state
    if state == BLANK:
        if not piece.strip():
            return BLANK
        seen, piece = b"", piece.lstrip()
    else:
        seen = delimiter[: state - 1]
    seen += piece
    if delimiter in seen:
        return 1 + len(delimiter)
    overlaps = (
        k for k in range(len(delimiter) - 1, 0, -1) if seen.endswith(delimiter[:k])
    )
    return 1 + next(overlaps, 0)


def token_bytes(tokenizer: Any, vocabulary: int) -> list[bytes]:
    """For each of V tokens, what it adds to a text in the middle; special tokens add
    nothing.

    Byte-level tokens and byte tokens such as <0x0A> give their bytes, which need not be
    whole characters; the mark that stands for a space gives the space. A head may have
    more rows than the tokenizer has tokens: the rest add nothing.
    """
    names = tokenizer.convert_ids_to_tokens(
        list(range(min(vocabulary, len(tokenizer))))
    )
    names += [None] * (vocabulary - len(names))
    special = {
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special
    } | set(tokenizer.all_special_ids)
    parts = decoder_parts(tokenizer)
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        found = [byte_level(name) if name else b"" for name in names]
    elif parts and kinds <= SIMPLE_DECODERS:
        found = [simple(name, parts) if name else b"" for name in names]
    else:
        found = by_decoding(tokenizer, names)
    for number in special:
        if number < vocabulary:
            found[number] = b""
    return found


def decoder_parts(tokenizer: Any) -> list[dict[str, Any]]:
    """The steps of the tokenizer's decoder, as tokenizer.json writes them; none if it
    has another.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return []
    whole = json.loads(backend.decoder.__getstate__())
    return whole["decoders"] if whole["type"] == "Sequence" else [whole]


def byte_alphabet() -> dict[str, int]:
    """GPT-2's letters for the 256 bytes: printable ones stand for themselves, the
    others for 256, 257, ...
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + k): byte for k, byte in enumerate(others)
    }


ALPHABET = byte_alphabet()


def byte_level(name: str) -> bytes:
    """A token in GPT-2's letters; an added token, written as it is, may hold others."""
    try:
        return bytes(map(ALPHABET.__getitem__, name))
    except KeyError:
        return name.encode()


def simple(name: str, parts: list[dict[str, Any]]) -> bytes:
    """A token whose mark for a space is replaced, or a byte token.

    Strip acts on whole texts.
    """
    for part in parts:
        if part["type"] == "Metaspace":
            name = name.replace(part["replacement"], " ")
        elif part["type"] == "Replace" and "String" in part["pattern"]:
            name = name.replace(part["pattern"]["String"], part["content"])
        elif part["type"] == "ByteFallback" and (byte := BYTE_TOKEN.fullmatch(name)):
            return bytes([int(byte[1], 16)])
    return name.encode()


def by_decoding(tokenizer: Any, names: list[str | None]) -> list[bytes]:
    """For any other decoder: what a token adds after one that is a visible text of its
    own.
    """
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    known = [k for k, name in enumerate(names) if name is not None]

    def texts(rows: list[list[int]]) -> list[str]:
        return tokenizer.batch_decode(
            rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    before = texts([anchor])[0]
    found = [b""] * len(names)
    for k, text in zip(known, texts([[*anchor, k] for k in known]), strict=True):
        found[k] = text.removeprefix(before).encode()
    return found
