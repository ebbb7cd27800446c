"""Show a piece of the package as the package has it, for the book's chapters."""

import ast
import inspect
from textwrap import dedent
from typing import Any


class Piece(str):
    """Source code as text, which `show` shows as it stands."""


def opening(thing: Any) -> Piece:
    """The source of a class or a module up to its first method or function: what it
    says of itself, and its fields.
    """
    text = dedent(inspect.getsource(thing))
    tree = ast.parse(text)
    top = tree.body[0] if inspect.isclass(thing) else tree
    body: list[ast.stmt] = getattr(top, "body", [])
    kinds = ast.FunctionDef | ast.ClassDef
    first = next((node for node in body if isinstance(node, kinds)), None)
    if first is None:
        return Piece(text.rstrip())
    line = min([first.lineno, *(d.lineno for d in first.decorator_list)])
    return Piece("\n".join(text.splitlines()[: line - 1]).rstrip())


def source(thing: Any) -> str:
    """A function's, a class's or a module's source, moved to the left margin."""
    return thing if isinstance(thing, Piece) else dedent(inspect.getsource(thing))


def show(*things: Any) -> None:
    """Display the source of functions, classes, modules or pieces, as code."""
    from IPython.display import Markdown, display  # only notebooks need it

    text = "\n\n\n".join(source(thing).rstrip() for thing in things)
    fence = "````" if "```" in text else "```"
    display(Markdown(f"{fence}python\n{text}\n{fence}"))
