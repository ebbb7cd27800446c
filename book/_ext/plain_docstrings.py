"""Show the package's docstrings as they stand: they are plain text, aligned by hand,
and not reStructuredText.
"""

import re


def plain(app, what, name, obj, options, lines):
    """The first paragraph becomes prose, and the rest a block of text."""
    end = lines.index("") if "" in lines else len(lines)
    first, rest = lines[:end], lines[end:]
    # Between backticks it is code, in which nothing needs a backslash.
    parts = "\n".join(line.strip() for line in first).split("`")
    parts[::2] = [re.sub(r"([\\*_|])", r"\\\1", part) for part in parts[::2]]
    lines[:] = "``".join(parts).split("\n")
    if any(rest):
        lines += ["", ".. code-block:: text", "", *("   " + line for line in rest), ""]


def setup(app):
    app.connect("autodoc-process-docstring", plain)
    return {"parallel_read_safe": True}
