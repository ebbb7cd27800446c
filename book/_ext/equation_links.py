"""Make every mention of a numbered equation, such as (5.3), a link to it.

Chapters number their equations with LaTeX's \\tag, which a notebook shows rightly in
JupyterLab and in Colab as well; a label of Sphinx's would show as raw text there.
"""

import re

from docutils import nodes

TAG = re.compile(r"\\tag\{(\d{1,2}\.\d{1,2})\}")
MENTION = re.compile(r"\((\d{1,2}\.\d{1,2})\)")
APART = (nodes.reference, nodes.literal, nodes.literal_block, nodes.math, nodes.title)


def anchor(number):
    return "equation-" + number.replace(".", "-")


def equations(app):
    if not hasattr(app.env, "pfref_equations"):
        app.env.pfref_equations = {}
    return app.env.pfref_equations


def collect(app, doctree):
    """Give each numbered equation of a page an anchor."""
    for block in doctree.findall(nodes.math_block):
        for number in TAG.findall(block.astext()):
            block["ids"].append(anchor(number))
            equations(app)[number] = app.env.docname


def purge(app, env, docname):
    known = equations(app)
    for number in [n for n, page in known.items() if page == docname]:
        del known[number]


def merge(app, env, docnames, other):
    equations(app).update(getattr(other, "pfref_equations", {}))


def link(app, doctree, docname):
    """Replace the mentions in running text."""
    known = equations(app)
    for text in list(doctree.findall(nodes.Text)):
        above, parent = [], text.parent
        while parent is not None:
            above.append(parent)
            parent = parent.parent
        if any(isinstance(node, APART) for node in above):
            continue
        pieces, last = [], 0
        for m in MENTION.finditer(str(text)):
            page = known.get(m[1])
            if page is None:
                continue
            uri = "" if page == docname else app.builder.get_relative_uri(docname, page)
            reference = nodes.reference(
                "", "", internal=True, refuri=f"{uri}#{anchor(m[1])}"
            )
            reference += nodes.inline("", m[0])
            pieces += [nodes.Text(str(text)[last : m.start()]), reference]
            last = m.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(str(text)[last:])])


def setup(app):
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
