"""Show a piece of the package as the package has it, for the book's chapters."""

import inspect


def show(*things: object) -> None:
    """Print the source of functions, classes or modules."""
    print("\n\n".join(inspect.getsource(thing).rstrip() for thing in things))
