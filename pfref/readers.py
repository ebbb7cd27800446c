"""How reward models read: a problem and its steps become ids, and a score has a place.

All families are read in one of five ways:

    closed    each step, then a separator         Qwen, ReasonFlux, VersaPRM, TRL
    in_lines  every line, then a newline          Skywork
    in_text   a tag after each step's last word   Math-Shepherd
    in_chat   each step a user's turn             RLHFlow
    asked     the whole text, then a question     Universal-PRM, a language model itself

Each takes (tokenizer, problem, steps) and returns the ids of the whole partial solution
and each step's place in them. Steps are exact texts, so that "".join(steps) is the
solution. Words are tokenised as words: a control token's literal in them is characters.
A step without words has no place, but for the first.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from .errors import UserError
from .prompts import begun, chat_ids, filled, inside, plain_ids, unused

Ids = tuple[int, ...]
Opening = Callable[[Any, str], Ids]  # (tokenizer, problem) -> ids before the solution
Closing = Callable[[Any], Ids]  # (tokenizer) -> ids after it
Rendered = tuple[list[int], list[int]]

NOWHERE = -1  # the place of a score that this text does not show
KEPT = 1000  # characters of a text whose ids are kept: a step, not a whole solution
HELD = 8  # ids at a problem's end that may change when a solution follows in one text
QUESTION = (
    "Is this solution correct so far? It may be unfinished. Answer with Yes or No."
)


def plain(tokenizer: Any, text: str) -> Ids:
    """Words. Steps come back at every later step and in every fork, so theirs are
    kept.
    """
    return (kept if len(text) <= KEPT else fresh)(tokenizer, text)


def fresh(tokenizer: Any, text: str) -> Ids:
    return tuple(plain_ids(tokenizer, text))


kept = lru_cache(maxsize=1 << 14)(fresh)


def after(tokenizer: Any, tag: str, text: str) -> Ids:
    """Words that follow `tag` directly, and so begin no text."""
    ids, before = plain(tokenizer, tag + text), control(tokenizer, tag)
    if ids[: len(before)] == before:
        return ids[len(before) :]
    return tuple(inside(tokenizer, text))


@lru_cache(maxsize=1 << 10)
def control(tokenizer: Any, text: str) -> Ids:
    """A recipe's own text, in which control tokens are meant."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def one_token(tokenizer: Any, text: str) -> int:
    ids = control(tokenizer, text)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise UserError(
            f"the reward model's tokenizer lacks {text!r} as one token; use the "
            "tokenizer that came with it, and name its family (a language model that "
            "judges itself needs the words as tokens)"
        )
    return ids[0]


# The five readers


def closed(
    tokenizer: Any,
    problem: str,
    steps: Sequence[str],
    *,
    opening: Opening,
    separator: str,
    strip: str | None = "\n",
) -> Rendered:
    """A separator closes each step, in place of the blank lines around it."""
    close = control(tokenizer, separator)
    written = separator if plain(tokenizer, separator) == close else ""
    ids: list[int] = [*opening(tokenizer, problem)]
    places: list[int] = []
    for step in steps:
        text = step.strip(strip).removesuffix(written).strip(strip)
        if places and not text.strip():  # it would double the separator
            places.append(NOWHERE)
            continue
        ids += (*plain(tokenizer, text), *close)
        places.append(len(ids) - 1)
    return ids, places


def in_lines(tokenizer: Any, problem: str, steps: Sequence[str]) -> Rendered:
    """Every line is tokenised alone, and a newline's token closes it.

    A step's score is where its last line is closed. A step that ends within a line has
    no place once that line goes on.
    """
    newline = control(tokenizer, "\n")
    ids = [begin_token(tokenizer), *plain(tokenizer, problem + "\n")]
    closings: dict[int, int] = {}  # from a line's end in the text to its place in ids
    places: list[int] = []
    end, text = 0, ""
    for line in "".join(steps).rstrip("\n").split("\n") if steps else ():
        ids += (*(plain(tokenizer, line) if line else ()), *newline)
        closings[end + len(line)] = len(ids) - 1
        end += len(line) + 1
    for step in steps:
        text += step
        ended = step.strip() or not places
        place = closings.get(len(text.rstrip("\n")), NOWHERE)
        places.append(place if ended else NOWHERE)
    return ids, places


def in_text(
    tokenizer: Any, problem: str, steps: Sequence[str], *, tag: str
) -> Rendered:
    """Problem, space and solution are one text; a tag follows each step's last word."""
    start = tuple(begun(tokenizer, []))
    if not steps:
        return open_end(start, plain(tokenizer, problem)), []
    mark, ids, waiting = control(tokenizer, tag), [*start], problem + " "
    places: list[int] = []
    for step in steps:
        words = step.rstrip()
        if places and not words:
            waiting += step
            places.append(NOWHERE)
            continue
        text = waiting + words
        ids += after(tokenizer, tag, text) if places else plain(tokenizer, text)
        ids += mark
        waiting = step[len(words) :]
        places.append(len(ids) - 1)
    return ids, places


def in_chat(tokenizer: Any, problem: str, steps: Sequence[str]) -> Rendered:
    """Each step is a user's turn, the first after the problem, and is answered by "+".

    A step's score is where its answer is the next token.
    """
    start, answer, onward = turns(tokenizer)
    if not steps:
        return open_end(start, plain(tokenizer, problem.lstrip())), []
    ids: list[int] = [*start]
    places: list[int] = []
    for step in steps:
        words = step.strip()
        if places and not words:
            places.append(NOWHERE)
            continue
        ids += onward if places else ()
        said = words if places else f"{problem} {words}".strip()
        ids += (*plain(tokenizer, said), *answer)
        places.append(len(ids) - 1)
    return ids, places


def asked(
    tokenizer: Any,
    problem: str,
    steps: Sequence[str],
    *,
    opening: Opening,
    closing: Closing,
    end: str = "",
) -> Rendered:
    """The text, and a look-ahead whose last id has the score of the whole of it.

    The next step is written over the look-ahead, and so only one step has a place: the
    last that has words.
    """
    ids: list[int] = [*opening(tokenizer, problem)]
    if not steps:
        return ids, []
    text = "".join(steps).strip("\n") + end
    ids += (*plain(tokenizer, text), *closing(tokenizer))
    spoken = max((k for k, step in enumerate(steps) if step.strip()), default=0)
    return ids, [len(ids) - 1 if k == spoken else NOWHERE for k in range(len(steps))]


# What stands before and after


def open_end(start: Ids, problem: Ids) -> list[int]:
    """A prompt whose last ids depend on what follows: they are left to the solution."""
    kept = max(len(problem) - HELD, 0 if start else 1)
    return [*start, *problem[:kept]]


def chat(
    suffix: str = "",
    system: str | None = None,
    template_args: dict[str, Any] | None = None,
) -> Opening:
    """The chat template up to the assistant's first word."""

    @lru_cache(maxsize=1 << 10)
    def opening(tokenizer: Any, problem: str) -> Ids:
        ids = chat_ids(
            tokenizer,
            problem + suffix,
            system,
            template_args,
            "the reward model",
            optional_system=True,
        )
        return tuple(ids)

    return opening


def bare(tokenizer: Any, problem: str) -> Ids:
    begin = tokenizer.bos_token_id
    return (*(() if begin is None else (begin,)), *plain(tokenizer, problem))


def before_blank_line(tokenizer: Any, problem: str) -> Ids:
    return tuple(begun(tokenizer, [*plain(tokenizer, problem.strip() + " \n\n")]))


def begin_token(tokenizer: Any) -> int:
    if tokenizer.bos_token_id is None:
        raise UserError(
            "the reward model's tokenizer has no token that begins a text; use the "
            "tokenizer that came with the reward model"
        )
    return tokenizer.bos_token_id


def end_token(tokenizer: Any) -> Ids:
    return (tokenizer.eos_token_id,)


@lru_cache(maxsize=64)
def turns(tokenizer: Any) -> tuple[Ids, Ids, Ids]:
    """A chat around users' words: what stands before the first of them; from their end
    to the answer "+"; and from there, the answer included, to the next words.
    """
    user, reply = unused(""), unused(unused(""))
    said = [
        {"role": role, "content": text}
        for role, text in (("user", user), ("assistant", reply)) * 2
    ]
    text = filled("the reward model", tokenizer, said)
    if text.count(user) != 2 or text.count(reply) != 2:
        raise UserError("the reward model's chat template leaves out what was said")
    start, between, _ = text.split(user)
    answer, onward = between.split(reply)
    plus = one_token(tokenizer, "+")
    return (
        control(tokenizer, start),
        control(tokenizer, answer),
        (plus, *control(tokenizer, onward)),
    )


def question(template_args: dict[str, Any] | None = None) -> Callable[[Any], Ids]:
    """From a solution's end to where Yes or No is the next word, for a tokenizer."""

    @lru_cache(maxsize=64)
    def closing(tokenizer: Any) -> Ids:
        if not tokenizer.chat_template:
            return tuple(inside(tokenizer, f"\n\n{QUESTION}\n"))
        answer = unused("")
        said = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": QUESTION},
        ]
        options = dict(add_generation_prompt=True) | (template_args or {})
        text = filled("the reward model", tokenizer, said, **options)
        return control(tokenizer, text.partition(answer)[2])

    return closing
