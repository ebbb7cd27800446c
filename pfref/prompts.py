"""From words to the tokens a model reads: a problem in its chat template, text as text,
and the tokens that end.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from .errors import UserError

NO_TEMPLATE = (
    "{place} has no chat template, and a model of its kind reads one; take the folder "
    "with its tokenizer_config.json or chat_template.jinja"
)
MARKUP = re.compile(r"<\|.+\|>|<extra_\d+>", re.DOTALL)

# For each tokenizer: its size, its control tokens, and a pattern that finds them.
known: WeakKeyDictionary[Any, tuple[int, dict[str, int], re.Pattern[str]]] = (
    WeakKeyDictionary()
)
told: set[str] = set()  # what standard error has heard once


def control_tokens(tokenizer: Any) -> tuple[dict[str, int], re.Pattern[str]]:
    """The tokens that steer a model and that no text should contain: literal -> id, and
    a pattern that finds the literals.

    They are the added tokens marked special, and those that look like markers although
    nobody marked them (some reward models' <extra_0>). Other added tokens, such as runs
    of spaces or <think>, are text.
    """
    size, controls, pattern = known.get(tokenizer, (-1, {}, re.compile("")))
    if size != len(tokenizer):  # new, or tokens were added since
        controls = {
            token.content: number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special or MARKUP.fullmatch(token.content)
        }
        longest = sorted((text for text in controls if text), key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest)) or r"(?!)")
        known[tokenizer] = len(tokenizer), controls, pattern
    return controls, pattern


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of `text` as text: none is added, and a control token's literal in it
    is characters.

    Text without such a literal gets the ids that the tokenizer gives it whole.
    """
    return joined(tokenizer, cut(tokenizer, text))


def cut(tokenizer: Any, text: str) -> list[str]:
    """Pieces of `text`: a cut after the first character of every control token's
    literal.
    """
    places = [start + 1 for start in literals(tokenizer, text)]
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def literals(tokenizer: Any, text: str) -> Iterator[int]:
    """Where a control token's literal begins in `text`, also inside another one."""
    _, pattern = control_tokens(tokenizer)
    found = pattern.search(text)
    while found:
        yield found.start()
        found = pattern.search(text, found.start() + 1)


def joined(tokenizer: Any, pieces: list[str]) -> list[int]:
    """The tokens of texts that follow one another, each tokenised apart."""
    ids = encode(tokenizer, pieces[0])
    for piece in pieces[1:]:
        ids += inside(tokenizer, piece)
    return ids


def encode(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def inside(tokenizer: Any, text: str) -> list[int]:
    """The tokens of `text` in the middle of a text.

    A tokenizer that puts a space before every text puts it before the newline here, so
    that it can be left out again.
    """
    newline = encode(tokenizer, "\n")
    ids = encode(tokenizer, "\n" + text)
    if ids[: len(newline)] == newline and tokenizer.unk_token_id not in newline:
        return ids[len(newline) :]
    return encode(tokenizer, text)


def chat_ids(
    tokenizer: Any,
    problem: str,
    system: str | None = None,
    template_args: dict[str, Any] | None = None,
    place: str = "",
    *,
    required: bool = False,
    optional_system: bool = False,
) -> list[int]:
    """The tokens of a problem as the chat template puts it, up to the assistant's first
    word.

    The beginning of the sequence is written once: by the template, or by the tokenizer
    where there is no template and the problem is plain text. The problem and the system
    text are a user's words: a control token's literal in them is read as characters.

    template_args    handed to the template, such as {"enable_thinking": False} for
                     Qwen3
    place            whose tokenizer it is, for the messages
    required         a tokenizer without a template is refused
    optional_system  a template that leaves the system text out may do so

    Raises UserError if a word is unknown to the tokenizer, or if the template fails, or
    leaves the system text out.
    """
    place = place or "this model"
    refuse_unknown(tokenizer, [problem], place)
    if not tokenizer.chat_template:
        if required:
            raise UserError(NO_TEMPLATE.format(place=place))
        refuse_unknown(tokenizer, [system or ""], place)
        text = f"{system}\n\n{problem}" if system else problem
        return begun(tokenizer, plain_ids(tokenizer, text))
    mark = unused(problem + (system or ""))
    words = mark.join(cut(tokenizer, problem))
    orders = mark.join(cut(tokenizer, system)) if system else None
    text = rendered(tokenizer, words, orders, template_args or {}, place)
    if words.strip() not in text:
        raise UserError(
            f"{place} has a chat template that leaves the problem out; it may be for "
            "messages in parts, as of models that read pictures"
        )
    if orders and orders.strip() in text:
        refuse_unknown(tokenizer, [system or ""], place)
    elif orders and not optional_system:
        raise UserError(
            f"{place} has a chat template that leaves no place for a system prompt; "
            "do without one"
        )
    return joined(tokenizer, text.split(mark))


def problem_ids(
    tokenizer: Any,
    problem: str,
    system: str | None,
    template_args: dict[str, Any] | None,
) -> list[int]:
    """`chat_ids` of a problem that is to be solved. Raises UserError if it is empty."""
    if not problem.strip():
        raise UserError("the problem is empty; write its text")
    return chat_ids(tokenizer, problem, system, template_args)


def check_room(prompt: Sequence[int], context: int) -> None:
    """Raises UserError if the prompt leaves no room for a solution."""
    if len(prompt) >= context:
        raise UserError(
            f"the prompt has {len(prompt)} tokens and the model's context {context}, "
            "which leaves no room for a solution; shorten the problem or take a model "
            "with a longer context"
        )


def begun(tokenizer: Any, ids: list[int]) -> list[int]:
    """What the tokenizer itself puts before a text, and the text; never what it puts
    after one.
    """
    bare, own = encode(tokenizer, "\n"), tokenizer("\n")["input_ids"]
    before = next(
        (k for k in range(len(own)) if own[k : k + len(bare)] == bare and bare), 0
    )
    return own[:before] + ids


def rendered(
    tokenizer: Any,
    problem: str,
    system: str | None,
    template_args: dict[str, Any],
    place: str,
) -> str:
    """The template's text.

    Where it has no system role, the system text goes before the problem.
    """
    fill = partial(
        filled, place, tokenizer, add_generation_prompt=True, **template_args
    )
    user = {"role": "user", "content": problem}
    try:
        return fill([{"role": "system", "content": system}, user] if system else [user])
    except UserError:
        if not system:
            raise
    text = fill([{"role": "user", "content": f"{system}\n\n{problem}"}])
    tell_once(
        f"{place} has a chat template without a system role; the system prompt goes "
        "before the problem"
    )
    return text


def filled(
    place: str, tokenizer: Any, said: list[dict[str, str]], /, **options: Any
) -> str:
    """The chat template's text of what was said. Raises UserError if it fails."""
    try:
        return tokenizer.apply_chat_template(said, tokenize=False, **options)
    except Exception as error:  # templates raise what they like
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{place} has a chat template that fails: {reason[0]}"
        ) from error


def tell_once(message: str) -> None:
    if message not in told:
        told.add(message)
        print(f"pfref: {message}", file=sys.stderr)


def unused(text: str) -> str:
    """A character for private use that `text` does not hold."""
    return next(chr(k) for k in range(0xE000, 0xF8FF) if chr(k) not in text)


def refuse_unknown(tokenizer: Any, texts: list[str], place: str) -> None:
    """Raises UserError if the user's words hold one that the tokenizer cannot write, or
    half a character.
    """
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        broken = error.object[error.start : error.end]
        raise UserError(
            f"the text holds {broken!r}, which is no character; save it as UTF-8"
        ) from error
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return
    for text in texts:
        if unknown not in plain_ids(tokenizer, text):
            continue
        strange = next(
            (
                word
                for word in text.split()
                if unknown in plain_ids(tokenizer, word)
                and unknown in plain_ids(tokenizer, " " + word)
            ),
            text,
        )
        raise UserError(
            f"{place} has a tokenizer that does not know {strange[:60]!r}; write "
            "it otherwise (MiniMath's models read problems worded as MiniMath words "
            "them)"
        )


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Ids of every token that ends a solution.

    They are the generation settings', the configuration's and the tokenizer's, and the
    control token that closes the assistant's turn in the chat template.
    """
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found.update(ids if isinstance(ids, list) else [ids] if ids is not None else [])
    if tokenizer.chat_template:
        tail = after_answer(tokenizer).lstrip()
        controls, pattern = control_tokens(tokenizer)
        if closing := pattern.match(tail):
            found.add(controls[closing.group()])
    return found


def after_answer(tokenizer: Any) -> str:
    """What the chat template writes after an assistant's words; nothing if it fails."""
    turn = [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "answer"},
    ]
    try:
        text = tokenizer.apply_chat_template(turn, tokenize=False)
    except Exception:  # it may want something else; then it closes nothing either
        return ""
    return text.rpartition("answer")[2]
