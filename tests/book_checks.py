"""What a chapter must be, so that its page can be believed. Every check returns a list
of complaints.

Strict nbval compares what is stored; these checks see to it that something is stored,
that nothing is exempt, and that the parts nbval cannot compare (prose, alternative
texts, repeated definitions, notation) hold as well.
"""

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pfref.show import opening

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
HEADINGS = [
    "## Objectives",
    "## What goes wrong",
    "## Exercises",
    "## Summary",
    "## References",
]
EXEMPTIONS = {
    "nbval-skip",
    "nbval-ignore-output",
    "nbval-raises-exception",
    "raises-exception",
}
MARKERS = (
    "NBVAL_SKIP",
    "NBVAL_IGNORE_OUTPUT",
    "NBVAL_RAISES_EXCEPTION",
    "PYTEST_VALIDATE_IGNORE_OUTPUT",
)
EXEMPT: dict[
    tuple[str, str], str
] = {}  # (chapter's file name, cell's first line) -> why nbval need not compare it

INSTALL = """try:
    import pfref
except ImportError:  # in Colab: fetch the book with its records, install the package
    !git clone -q --depth 1 https://github.com/pfref/pfref
    %cd -q pfref/book
    %pip install -q .."""

Notebook = dict[str, Any]
Cell = dict[str, Any]


def chapters() -> list[Path]:
    return sorted(BOOK.glob("*.ipynb"))


def read(path: Path) -> Notebook:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: Cell) -> str:
    return (
        cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
    )


def cells(notebook: Notebook, kind: str) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def tags(cell: Cell) -> set[str]:
    return set(cell["metadata"].get("tags", []))


def where(cell: Cell) -> str:
    lines = source(cell).strip().splitlines()
    return f"cell `{lines[0][:60] if lines else ''}`"


def headings(cell: Cell) -> list[str]:
    """The headings of a markdown cell, code blocks aside."""
    text = re.sub(r"^(```|~~~).*?^\1", "", source(cell), flags=re.S | re.M)
    return [line.strip() for line in text.splitlines() if re.match(r"#{1,6} ", line)]


# Execution and nbval


def executed(notebook: Notebook) -> list[str]:
    """Every code cell was run, from the first to the last, in a fresh kernel and
    without an error.
    """
    found = []
    for count, cell in enumerate(cells(notebook, "code"), 1):
        if not source(cell).strip():
            found.append(f"code cell {count} is empty")
        if cell["execution_count"] != count:
            found.append(
                f"{where(cell)} has execution count {cell['execution_count']}, not "
                f"{count}: run all cells afresh"
            )
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            found.append(f"{where(cell)} has stored an error")
    return found


def compared(
    notebook: Notebook, chapter: str = "", exempt: dict[tuple[str, str], str] = EXEMPT
) -> list[str]:
    """nbval compares every output, and what is stored can be compared."""
    found = []
    for cell in cells(notebook, "code"):
        first = source(cell).strip().partition("\n")[0]
        marks = sorted(tags(cell) & EXEMPTIONS) + [
            m for m in MARKERS if m in source(cell)
        ]
        if marks and not exempt.get((chapter, first)):
            found.append(
                f"{where(cell)} is exempt from nbval ({', '.join(marks)}) without a "
                f"reason in EXEMPT"
            )
        for output in cell["outputs"]:
            if output.get("name") == "stderr":
                found.append(
                    f"{where(cell)} has stored standard error: silence the warning or "
                    f"the progress bar"
                )
            if re.search(r"\bat 0x[0-9a-f]{6,}", json.dumps(output)):
                found.append(f"{where(cell)} prints an address in memory")
    return found


# Anatomy


def anatomy(notebook: Notebook) -> list[str]:
    """One title; the headings that every chapter has, in order; a line on time and
    seeds.
    """
    found: list[str] = []
    lines = [line for cell in cells(notebook, "markdown") for line in headings(cell)]
    if (
        not lines
        or not lines[0].startswith("# ")
        or sum(line.startswith("# ") for line in lines) != 1
    ):
        found.append("a chapter begins with its title, the only heading of level 1")
    found += [
        f"the heading `{wanted}` is missing, or there twice"
        for wanted in HEADINGS
        if lines.count(wanted) != 1
    ]
    if not found and [line for line in lines if line in HEADINGS] != HEADINGS:
        found.append(f"the order of headings is {', '.join(HEADINGS)}")
    if not any(
        re.search(r"^\*\*Time and seeds\.\*\* ", source(cell), re.M)
        for cell in cells(notebook, "markdown")
    ):
        found.append("no line begins with `**Time and seeds.** `")
    first = next(iter(cells(notebook, "code")), None)
    if first is None or source(first) != INSTALL or "remove-cell" not in tags(first):
        found.append(
            "the first code cell is not INSTALL, tagged remove-cell, which fetches "
            "the book in Colab and does nothing where pfref is installed"
        )
    return found


def exercises(notebook: Notebook) -> list[str]:
    """Three to five exercises, each with a solution that was run and is folded on the
    page, in JupyterLab and in Colab.
    """
    inside, solved, open_ = False, {}, []
    current = None
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for line in headings(cell):
                if re.match(r"##? ", line):
                    inside, current = line == "## Exercises", None
                elif inside and line.startswith("### "):
                    current = line
                    solved[line] = False
        elif (
            current
            and tags(cell) & {"hide-cell", "hide-input"}
            and cell["execution_count"]
        ):
            solved[current] = True
            if not cell["metadata"].get("jupyter", {}).get("source_hidden"):
                open_.append(current)
    found = [
        f"`{line}` has a solution that JupyterLab shows: make execute hides it"
        for line in open_
    ]
    found += [
        f"`{line}` has no folded solution: a code cell tagged hide-cell or hide-input "
        f"that was run"
        for line, done in solved.items()
        if not done
    ]
    if not 3 <= len(solved) <= 5:
        found.append(
            f"there are {len(solved)} exercises, not three to five headings `### "
            f"Exercise k`"
        )
    for k, line in enumerate(solved, 1):
        if not re.match(rf"### Exercise {k}\b", line):
            found.append(f"`{line}` is not `### Exercise {k}`")
    return found


def images(notebook: Notebook) -> list[str]:
    """Every figure is a PNG whose alternative text says what it shows."""
    found = []
    for cell in cells(notebook, "code"):
        kinds = {
            kind
            for output in cell["outputs"]
            for kind in output.get("data", {})
            if kind.startswith("image/")
        }
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        if kinds and len(alt) < 30:
            found.append(
                f"{where(cell)} draws without an alternative text of 30 characters in "
                f"metadata mystnb.image.alt"
            )
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        if kinds and not (len(figure.get("caption", "")) >= 20 and figure.get("name")):
            found.append(
                f"{where(cell)} draws without a caption and a name in metadata "
                "mystnb.figure"
            )
        if kinds - {"image/png"}:
            found.append(
                f"{where(cell)} draws {', '.join(sorted(kinds - {'image/png'}))}: "
                f"nbval compares only PNG rightly"
            )
    for cell in cells(notebook, "markdown"):
        if re.search(r"!\[.{0,29}\]\(", source(cell)) or re.search(
            r"<img(?![^>]*alt=\"[^\"]{30,})", source(cell)
        ):
            found.append(
                f"{where(cell)} shows an image without an alternative text of 30 "
                f"characters"
            )
    return found


# Code and prose that cannot drift


def trees(notebook: Notebook) -> Iterator[tuple[Cell, ast.Module]]:
    """The parsed code cells, IPython's own syntax aside."""
    for cell in cells(notebook, "code"):
        yield (
            cell,
            ast.parse(re.sub(r"^([ \t]*)[%!].*$", r"\1pass", source(cell), flags=re.M)),
        )


def imported(notebook: Notebook) -> tuple[dict[str, Any], list[str]]:
    """What the chapter's imports from pfref bind, and complaints of those that fail."""
    names: dict[str, Any] = {}
    found = []
    for cell, tree in trees(notebook):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "pfref":
                        try:
                            module = importlib.import_module(alias.name)
                        except ImportError:
                            found.append(
                                f"{where(cell)} imports {alias.name}, which does not "
                                f"exist"
                            )
                        else:
                            names[alias.asname or "pfref"] = (
                                module
                                if alias.asname
                                else importlib.import_module("pfref")
                            )
            elif (
                isinstance(node, ast.ImportFrom)
                and (node.module or "").split(".")[0] == "pfref"
            ):
                for alias in node.names:
                    try:
                        module = importlib.import_module(node.module)
                        if not hasattr(module, alias.name):
                            importlib.import_module(f"{node.module}.{alias.name}")
                        names[alias.asname or alias.name] = getattr(module, alias.name)
                    except ImportError:
                        found.append(
                            f"{where(cell)} imports {alias.name} from {node.module}, "
                            f"which does not have it"
                        )
    return names, found


def dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return None


def imports(notebook: Notebook) -> list[str]:
    """Every name that a chapter takes from pfref exists, by import or as an attribute
    of an imported module.
    """
    names, found = imported(notebook)
    for cell, tree in trees(notebook):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not (name := dotted(node)):
                continue
            first, *rest = name.split(".")
            thing = names.get(first)
            for part in rest:
                if not isinstance(thing, ModuleType):
                    break
                if not hasattr(thing, part):
                    found.append(f"{where(cell)} uses {name}, which does not exist")
                    break
                thing = getattr(thing, part)
    return found


def bare(node: ast.AST) -> str:
    """A definition as parsed source, docstrings aside. Comments are no part of it."""
    node = ast.parse(ast.unparse(node)).body[0]
    for inner in ast.walk(node):
        if (
            isinstance(inner, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
            and ast.get_docstring(inner) is not None
        ):
            inner.body = inner.body[1:] or [ast.Pass()]
    return ast.dump(node)


def named(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """The top-level definitions of a module or a cell: functions, classes and assigned
    names.
    """
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        for target in (
            node.targets
            if isinstance(node, ast.Assign)
            else [getattr(node, "target", None)]
        ):
            for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(
                    name, ast.Name
                ):
                    yield name.id, node


@cache
def package_definitions() -> dict[str, list[tuple[Path, ast.stmt]]]:
    """Every top-level definition of pfref by its name, with the file that holds it."""
    found: dict[str, list[tuple[Path, ast.stmt]]] = {}
    for file in sorted((ROOT / "pfref").rglob("*.py")):
        for name, node in named(ast.parse(file.read_text(encoding="utf-8"))):
            found.setdefault(name, []).append((file, node))
    return found


def definitions(
    notebook: Notebook, package: dict[str, list[tuple[Path, ast.stmt]]] | None = None
) -> list[str]:
    """A cell tagged `pfref-definition` repeats definitions of the package exactly."""
    package = package_definitions() if package is None else package
    found = []
    for cell, tree in trees(notebook):
        if "pfref-definition" not in tags(cell):
            continue
        defined = [
            (name, node)
            for name, node in named(tree)
            if isinstance(node, ast.FunctionDef | ast.ClassDef) or name in package
        ]
        if not defined:
            found.append(
                f"{where(cell)} is tagged pfref-definition and defines nothing of pfref"
            )
        for name, node in defined:
            if name not in package:
                found.append(
                    f"{where(cell)} is tagged pfref-definition, but pfref has no {name}"
                )
            elif bare(node) not in [bare(other) for _, other in package[name]]:
                found.append(
                    f"{where(cell)}: {name} is not as "
                    f"{package[name][0][0].relative_to(ROOT)} has it"
                )
    return found


def shown(notebook: Notebook) -> tuple[dict[Path, set[int]], list[str]]:
    """The package's lines that a chapter shows, by `show(...)` or in a
    `pfref-definition` cell, and what is unclear.
    """
    names, found = imported(notebook)
    package = package_definitions()
    lines: dict[Path, set[int]] = {}

    def cover(file: Path, first: int, last: int) -> None:
        lines.setdefault(file.resolve(), set()).update(range(first, last + 1))

    for cell, tree in trees(notebook):
        if "pfref-definition" in tags(cell):
            for name, node in named(tree):
                for file, other in package.get(name, []):
                    if bare(node) == bare(other):
                        decorators = getattr(other, "decorator_list", [])
                        cover(
                            file,
                            min([other.lineno, *(d.lineno for d in decorators)]),
                            other.end_lineno or other.lineno,
                        )
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in calls:
            if dotted(call.func) not in ("show", "show.show"):
                continue
            for argument in call.args:
                whole = True
                if isinstance(argument, ast.Call) and dotted(argument.func) in (
                    "opening",
                    "show.opening",
                ):
                    whole, argument = False, argument.args[0]
                path = dotted(argument)
                try:
                    first, *rest = (path or "").split(".")
                    thing = names[first]
                    for part in rest:
                        thing = getattr(thing, part)
                    thing = inspect.unwrap(thing)
                    text, start = inspect.getsourcelines(thing)
                    count = len(text) if whole else len(opening(thing).splitlines())
                    start = max(start, 1)  # a module's is 0
                    cover(Path(inspect.getfile(thing)), start, start + count - 1)
                except (KeyError, AttributeError, TypeError, OSError):
                    found.append(
                        f"{where(cell)}: cannot tell what "
                        f"show({ast.unparse(argument)}) shows; give names that "
                        "the chapter imports from pfref, or opening(name)"
                    )
    return lines, found


def shows(notebook: Notebook) -> list[str]:
    """Every show(...) is resolved from the chapter's imports."""
    return shown(notebook)[1]


# Notation

LISTED = r"""
\sum \prod \int \log \exp \max \min \arg \argmax \argmin \sup \inf \lim \sqrt \frac
\tfrac \dfrac \binom \sin \cos \det \sim \propto \mid \cdot \cdots \ldots \dots \vdots
\ddots \le \ge \leq \geq \ll \gg \ne \neq \approx \equiv \simeq \in \notin \subset
\subseteq \cup \cap \setminus \emptyset \to \rightarrow \leftarrow \Rightarrow
\Longrightarrow \iff \Leftrightarrow \mapsto \gets \infty \partial \nabla \times \otimes
\odot \circ \ast \star \pm \mp \top \prime \forall \exists \land \lor \neg \left \right
\middle \big \Big \bigl \bigr \Bigl \Bigr \bigg \Bigg \biggl \biggr \Biggl \Biggr
\langle \rangle \lfloor \rfloor \lceil \rceil \lvert \rvert \lVert \rVert \vert \Vert
\quad \qquad \displaystyle \textstyle \limits \nolimits \underbrace \overbrace \underset
\overset \stackrel \substack \colon \coloneqq \ln \bmod \mod \pmod \tag \nonumber \notag
\qquad \hline \div \perp \backslash \smash \overset \xrightarrow \oplus \longrightarrow
\cong \prec \succ \diamond \bullet \dotsc \dotsb \Pr \boxed \rm
"""
OPERATORS = set(LISTED.split())
DECORATIONS = {
    r"\widehat": r"\hat",
    r"\widetilde": r"\tilde",
    r"\overline": r"\bar",
    r"\boldsymbol": r"\mathbf",
} | {
    name: name
    for name in (
        r"\hat",
        r"\bar",
        r"\tilde",
        r"\check",
        r"\dot",
        r"\mathbf",
        r"\mathbb",
        r"\mathcal",
        r"\mathscr",
        r"\mathfrak",
        r"\vec",
    )
}
ALIASES = {r"\epsilon": r"\varepsilon", r"\phi": r"\varphi"}
WORDS = re.compile(
    r"\\(?:text|textbf|textit|textrm|texttt|mathrm|mathsf|mathtt|operatorname\*?|label|eqref|ref|tag|mbox|hspace"
    r"|vspace|color|begin|end)\s*\{[^{}]*\}(?:(?<=array\})\{[^{}]*\})?"
)
TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|.", re.S)


def formulas(markdown: str) -> list[str]:
    """The LaTeX of a piece of markdown, code aside."""
    text = re.sub(
        r"^(`{3,}|:{3,})\{math\}[^\n]*\n(?::\w+:[^\n]*\n)*(.*?)^\1",
        r"$$\2$$",
        markdown,
        flags=re.S | re.M,
    )
    text = re.sub(
        r"^(`{3,}|~{3,})(?!\{(?:prf|admonition|note|tip|warning)).*?^\1",
        "",
        text,
        flags=re.S | re.M,
    )
    text = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", text, flags=re.S)
    found = re.findall(r"(?<!\\)\$\$(.+?)\$\$", text, re.S)
    text = re.sub(r"(?<!\\)\$\$.+?\$\$", "", text, flags=re.S)
    found += [
        m[1]
        for m in re.findall(
            r"\\begin\{((?:align|equation|gather)\*?)\}(.+?)\\end\{\1\}", text, re.S
        )
    ]
    return found + re.findall(r"(?<!\\)\$((?:\\.|[^$\\])+?)\$", text, re.S)


def symbols(tex: str) -> set[str]:
    """The symbols of a formula, bases and indices alike: r'\\hat Z_t^n' has \\hat Z, t
    and n. Words and operators go.
    """
    tokens = [t for t in TOKEN.findall(WORDS.sub(" ", tex)) if not t.isspace()]
    found: set[str] = set()
    decoration = None
    for token in tokens:
        token = ALIASES.get(token, token)
        if token in DECORATIONS:
            decoration = DECORATIONS[token]
        elif decoration and token == "{":
            continue
        elif decoration:
            found.add(f"{decoration} {token}")
            decoration = None
        elif re.fullmatch(r"\\[A-Za-z]+\*?", token):
            found |= {token} - OPERATORS
        elif token.isalpha():
            found.add(token)
    return found


def listed(page: str) -> set[str]:
    """The symbols that the notation page lists: the first column of its tables, and the
    bound indices.
    """
    found: set[str] = set()
    for line in page.splitlines():
        if line.startswith(("| ", "Bound indices")):
            found |= {
                s
                for tex in formulas(
                    line.split("|")[1] if line.startswith("|") else line
                )
                for s in symbols(tex)
            }
    return found


def notation(text: str, known: set[str]) -> list[str]:
    """Every symbol in the text's formulas is a listed one."""
    found: dict[str, str] = {}
    for tex in formulas(text):
        for symbol in symbols(tex) - known:
            found.setdefault(symbol, tex)
    return [
        f"{symbol} in `{' '.join(tex.split())[:80]}` is not on the notation page"
        for symbol, tex in sorted(found.items())
    ]


def notation_of(notebook: Notebook, known: set[str]) -> list[str]:
    return notation(
        "\n\n".join(source(cell) for cell in cells(notebook, "markdown")), known
    )


# The book as a whole


def contents(toc: dict[str, Any]) -> list[str]:
    """The files that _toc.yml names, without suffix."""
    return [toc["root"]] + [
        page["file"]
        for part in toc.get("parts", [])
        for chapter in part.get("chapters", [])
        for page in (chapter, *chapter.get("sections", []))
    ]


def toc_complaints(toc: dict[str, Any], root: Path = ROOT) -> list[str]:
    """The table of contents lists exactly the pages that exist."""
    there = {
        str(p.relative_to(root).with_suffix(""))
        for kind in ("*.ipynb", "*.md", "source/*.md")
        for p in (root / "book").glob(kind)
    }
    names = contents(toc)
    return (
        [f"_toc.yml does not list {name}" for name in sorted(there - set(names))]
        + [
            f"_toc.yml lists {name}, which does not exist"
            for name in names
            if name not in there
        ]
        + [
            f"_toc.yml lists {name} twice"
            for name in sorted({n for n in names if names.count(n) > 1})
        ]
    )


def named_tests(page: str, root: Path = ROOT) -> list[str]:
    """Every test that a page names exists."""
    found = []
    for file, name in re.findall(r"`(tests/\w+\.py)::(\w+)`", page):
        path = root / file
        if not path.is_file() or not re.search(
            rf"^def {name}\(", path.read_text(encoding="utf-8"), re.M
        ):
            found.append(f"there is no test {file}::{name}")
    return found
