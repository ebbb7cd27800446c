"""The one exception for what a user can mend: its message says what is wrong and what
to do, in one line.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class UserError(ValueError):
    """Bad input: the command line prints the message and exits with 2."""


def hint(name: str, known: Collection[str], otherwise: str) -> str:
    """What to say of a name that is not known: the one that is meant, perhaps."""
    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else otherwise


@contextmanager
def reading(file: str | Path) -> Iterator[None]:
    """What is wrong with a file of JSON, as a UserError."""
    try:
        yield
    except (OSError, ValueError, AttributeError) as error:
        told = getattr(error, "strerror", None) or "it is damaged, or no such file"
        raise UserError(f"cannot read {file}: {told}; get it again") from error


@contextmanager
def writing(file: str | Path) -> Iterator[None]:
    """What the system refuses inside, as a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error
