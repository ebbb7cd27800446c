"""Let pages be plain Markdown, which JupyterLab shows as well as the built book does.

- [Fig. 6.2](06_particle_filter.ipynb#fig-06-error) leads to the figure of that name.
- [(2025)](references.bib "puri2025") becomes a citation, which stands in its place;
  a line [All works](references.bib) becomes the list of all of them.
- The glossary, bold terms with a line each, becomes a list of definitions with an entry
  in the index for every term.
"""

import re

from docutils import nodes

CITATION = re.compile(r'\[[^\]]*\]\(references\.bib "([\w,]+)"\)')
WORKS = re.compile(r"^\[[^\]]*\]\(references\.bib\)$", re.M)
LISTED = "```{bibliography}\n:all:\n:style: plain\n```"
TERM = re.compile(r"^\*\*(.+)\*\*\\\n(.+)$", re.M)
GLOSSARY = "book/glossary"


def name_figures(app, doctree):
    """Tell the parser of links which figures a page has."""
    known = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for figure in doctree.findall(nodes.figure):
        for name in figure["ids"]:
            known.setdefault(name, (figure.line or 0, name, name))


def cite(text: str) -> str:
    """The citations and their list, as Sphinx has them."""
    return WORKS.sub(LISTED, CITATION.sub(r"{cite}`\1`", text))


def define(text: str) -> str:
    """The glossary, as Sphinx has it."""
    first = TERM.search(text)
    if first is None:
        raise ValueError("the glossary has no terms, as **term**\\ and a line of text")
    terms = TERM.sub(r"\1\n  \2", text[first.start() :]).rstrip()
    return f"{text[: first.start()]}:::{{glossary}}\n{terms}\n:::\n"


def read(app, docname, content):
    if app.env.doc2path(docname).endswith(".md"):
        content[0] = cite(content[0])
    if docname == GLOSSARY:
        content[0] = define(content[0])


def setup(app):
    app.connect("source-read", read)
    app.connect("doctree-read", name_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
