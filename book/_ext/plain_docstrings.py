"""Show the package's docstrings as they stand: they are plain text, aligned by hand,
and not reStructuredText.
"""

import re


def plain(app, what, name, obj, options, lines):
    """The first paragraph becomes prose, and the rest a block of text."""
    end = lines.index("") if "" in lines else len(lines)
    first, rest = lines[:end], lines[end:]
    lines[:] = [
        re.sub(r"([\\*_|])", r"\\\1", line).replace("`", "``").strip() for line in first
    ]
    if any(rest):
        lines += ["", ".. code-block:: text", "", *("   " + line for line in rest), ""]


def setup(app):
    app.connect("autodoc-process-docstring", plain)
    return {"parallel_read_safe": True}
