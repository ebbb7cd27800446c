"""Mutants of pfref's sources: which there are, by mutmut's operators, and which count.

mutmut's own walk leaves out decorated functions and what is outside of functions; this
one does not. Left out is text for people or for type checkers: docstrings, annotations
and type aliases, whatever stands in a `raise`, help texts of the command line; and so
are imports, decorators, and arguments of `len` and `isinstance`.
"""

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.mutators import mutation_operators

HELP = {"help", "description", "epilog", "metavar", "usage", "prog"}
Site = tuple[cst.CSTNode, Callable[[Any], Iterable[cst.CSTNode]]]
TYPES = {"Callable", "TypeVar", "Union", "Optional", "Literal"}


@dataclass(frozen=True)
class Mutant:
    file: str  # in pfref/
    line: int  # of the first difference
    span: tuple[int, int]  # lines of its statement, as far as the mutated part
    inside: bool  # of a function, so that to import the module does not run it
    operator: str
    before: str
    after: str
    source: str  # the whole mutated file

    def __str__(self) -> str:
        return f"pfref/{self.file}:{self.line}  {self.before}  ->  {self.after}"


class Walk(cst.CSTVisitor):
    """Gathers the nodes that count."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if is_left_out(node):
            return False
        self.nodes.append(node)
        return True


def is_left_out(node: cst.CSTNode) -> bool:
    match node:
        case cst.Annotation() | cst.Raise() | cst.Decorator() | cst.TypeAlias():
            return True
        case cst.Import() | cst.ImportFrom():
            return True
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString()):
            return True
        case cst.Arg(keyword=cst.Name(value=name)) if name in HELP:
            return True
        case cst.Assign(value=cst.Subscript(value=cst.Name(value=name))):
            return name in TYPES
        case cst.Assign(value=cst.Call(func=cst.Name(value=name))):
            return name in TYPES
    return False


class Module:
    """A source file and the places where an operator has something to do."""

    def __init__(self, root: Path, file: str) -> None:
        self.file = file
        self.original = (root / "pfref" / file).read_text(encoding="utf-8")
        wrapper = MetadataWrapper(cst.parse_module(self.original))
        self.module = wrapper.module
        self.places = wrapper.resolve(PositionProvider)
        self.parents = wrapper.resolve(ParentNodeProvider)
        self.plain = ast.dump(ast.parse(self.original))
        walk = Walk()
        self.module.visit(walk)
        self.sites = [
            (node, operator)
            for node in walk.nodes
            for kind, operator in mutation_operators
            if isinstance(node, kind) and node in self.places
            if any(counts(node, changed) for changed in operator(node))
        ]

    def mutate(self, site: Site, chance: Random) -> Mutant | None:
        """One of the site's mutants; None if it is no program, or the same one."""
        node, operator = site
        changed = chance.choice([new for new in operator(node) if counts(node, new)])
        replaced = self.module.deep_replace(node, changed)
        assert isinstance(replaced, cst.Module)
        source = replaced.code
        try:
            if ast.dump(ast.parse(source)) == self.plain:
                return None
        except SyntaxError:  # such as an argument without a name after named ones
            return None
        first, inside = self.statement(node)
        line, before, after = difference(self.original, source)
        span = first, max(self.places[node].end.line, first)
        name = operator.__name__.removeprefix("operator_")
        return Mutant(self.file, line, span, inside, name, before, after, source)

    def statement(self, node: cst.CSTNode) -> tuple[int, bool]:
        """First line of the node's statement, and whether a function runs it."""
        first, inside = 0, False
        while node in self.parents:
            if not first and isinstance(
                node, cst.BaseCompoundStatement | cst.SimpleStatementLine
            ):
                first = self.places[node].start.line
            parent = self.parents[node]
            # Defaults of arguments are worked out where the function is defined.
            if isinstance(parent, cst.FunctionDef | cst.Lambda):
                inside |= node is parent.body
            node = parent
        return first or 1, inside


def counts(node: cst.CSTNode, changed: cst.CSTNode) -> bool:
    """Not an argument that is left out, nor one without which nothing runs at all."""
    if not isinstance(node, cst.Call) or not isinstance(changed, cst.Call):
        return True
    if isinstance(node.func, cst.Name) and node.func.value in ("len", "isinstance"):
        return False
    kept = {id(arg) for arg in changed.args}
    return not any(is_left_out(arg) for arg in node.args if id(arg) not in kept)


def difference(before: str, after: str) -> tuple[int, str, str]:
    """The number of the first line that differs, and the lines that do, of both."""
    old, new = before.splitlines(), after.splitlines()
    start = next(k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    shown = [
        " ".join(" ".join(lines[start : len(lines) - end]).split())
        for lines in (old, new)
    ]
    return start + 1, shown[0], shown[1] or "(nothing)"


def sample(root: Path, count: int, seed: int, only: Sequence[str] = ()) -> list[Mutant]:
    """`count` different mutants of pfref without minimath, or of the modules named.

    Every pair of a place and an operator is as likely as another, then every mutant
    that the operator makes there: a call with many arguments counts no more than a sum.
    """
    files = sorted(path.name for path in (root / "pfref").glob("*.py"))
    modules = [Module(root, file) for file in files if not only or file in only]
    chance = Random(seed)
    sites = [(module, site) for module in modules for site in module.sites]
    chance.shuffle(sites)
    print(f"{len(sites)} places for mutants in {len(modules)} modules", flush=True)
    made = (module.mutate(site, chance) for module, site in sites)
    return list(islice((mutant for mutant in made if mutant), count))
