"""The book's schematics, drawn from source.

`python -m book.drawings` writes each to `book/_static/drawings/NAME.svg`.
"""
