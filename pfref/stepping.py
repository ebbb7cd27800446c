"""Where a step ends and where a solution ends, decided by lookup on the device."""

from typing import Any

import torch
from torch import Tensor

BLANK = 0  # the state at a step's start: nothing but white space so far


def match_table(tokenizer: Any, vocabulary: int, delimiter: str) -> Tensor:
    """(states, V): from a state and a token to the next state. The last is `complete_state`, which stays.

    State BLANK has seen only white space, so a stray delimiter at its start makes no empty step. State 1 + k has seen
    text of which the last k characters begin the delimiter, so a delimiter is found across tokens too.
    """
    states = complete_state(delimiter)
    table = torch.full((states + 1, vocabulary), states)
    texts = tokenizer.batch_decode(
        [[token] for token in range(min(vocabulary, len(tokenizer)))]
    )
    texts += [""] * (vocabulary - len(texts))
    plain = torch.tensor(
        [not set(text) & set(delimiter) and bool(text.strip()) for text in texts]
    )
    table[:states, plain] = 1
    for token in (~plain).nonzero()[:, 0].tolist():
        for state in range(states):
            table[state, token] = advance(state, texts[token], delimiter)
    return table


def complete_state(delimiter: str) -> int:
    """The state in which the delimiter has been seen whole."""
    return 1 + len(delimiter)


def advance(state: int, text: str, delimiter: str) -> int:
    """The state after `text`."""
    if state == BLANK:
        if not text.strip():
            return BLANK
        seen, text = "", text.lstrip()
    else:
        seen = delimiter[: state - 1]
    seen += text
    if delimiter in seen:
        return complete_state(delimiter)
    overlaps = (
        k for k in range(len(delimiter) - 1, 0, -1) if seen.endswith(delimiter[:k])
    )
    return 1 + next(overlaps, 0)


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a solution: the generation settings', the tokenizer's, and the chat template's."""
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found.update(ids if isinstance(ids, list) else [ids] if ids is not None else [])
    if tokenizer.chat_template:
        turn = [
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": "answer"},
        ]
        tail = tokenizer.apply_chat_template(turn, tokenize=False).rpartition("answer")[
            2
        ]
        closing = tokenizer(tail, add_special_tokens=False)["input_ids"][:1]
        found.update(set(closing) & set(tokenizer.all_special_ids))
    return found
