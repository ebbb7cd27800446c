"""What chapters show of the package's source."""

import functools

from pfref.show import Piece, opening, source


class Fields:
    """Two."""

    one: int = 1
    two: int = 2


class Full:
    """A field and a method that is decorated."""

    one: int = 1

    @functools.cache  # noqa: B019
    def method(self) -> int:
        return self.one


def test_a_class_opens_with_its_fields() -> None:
    assert opening(Fields) == (
        'class Fields:\n    """Two."""\n\n    one: int = 1\n    two: int = 2'
    )
    assert opening(Full).splitlines()[-1] == "    one: int = 1"


def test_a_piece_is_shown_as_it_stands() -> None:
    text = "    x = 1"
    assert source(Piece(text)) == text
    assert source(Full.method).startswith("@functools.cache")
