"""Single changes to a source file: operators, comparisons, constants, reductions, signs, argument order, defaults.

candidates(path) lists the changes of a Python or YAML file; `Mutation.apply` gives the changed text.
"""

import ast
import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

E = TypeVar("E", bound=ast.expr)

ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
}
COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
CALLS = {
    "mean": "sum",
    "sum": "mean",
    "amax": "amin",
    "amin": "amax",
    "max": "min",
    "min": "max",
    "argmax": "argmin",
    "argmin": "argmax",
    "any": "all",
    "all": "any",
    "floor": "ceil",
    "ceil": "floor",
    "square": "abs",
    "relu": "abs",
    "softmax": "log_softmax",
}
# calls whose first two arguments name things of different kinds, so that a swap is a plain error
NO_SWAP = {"isinstance", "getattr", "setattr", "hasattr", "field", "TypeVar", "register_buffer"}


@dataclass(frozen=True)
class Mutation:
    """One change: the text between two offsets of a file is replaced.

    Attributes:
        path: The file.
        line: Line of the change.
        start, end: Offsets of the replaced text.
        old, new: The text before and after.
        kind: What is changed.
    """

    path: Path
    line: int
    start: int
    end: int
    old: str
    new: str
    kind: str

    def apply(self, text: str) -> str:
        assert text[self.start : self.end] == self.old
        return text[: self.start] + self.new + text[self.end :]

    def __str__(self) -> str:
        old, new = (" ".join(part.split()) for part in (self.old, self.new))
        return f"{self.path}:{self.line}  {self.kind}: {old}  ->  {new}"


def candidates(path: Path, text: str) -> list[Mutation]:
    """All changes of a file, in order."""
    found = _of_yaml(path, text) if path.suffix == ".yaml" else _of_python(path, text)
    return sorted(found, key=lambda m: (m.start, m.end, m.kind, m.new))


def _of_yaml(path: Path, text: str) -> Iterator[Mutation]:
    for match in re.finditer(r"(?m)(?<=[\s\[{,])(-?\d+\.?\d*(?:e-?\d+)?|true|false)(?=\s*(?:[,}\]]|$|\s#))", text):
        start = match.start(1)
        line = text[text.rfind("\n", 0, start) + 1 : start]
        if line.lstrip().startswith("#") or " #" in line or ":" not in line:
            continue
        old = match[1]
        if old in ("true", "false"):
            new = "false" if old == "true" else "true"
        else:
            new = repr(_other(float(old) if re.search("[.]|e-", old) else int(old)))
        yield Mutation(path, text.count("\n", 0, start) + 1, start, match.end(1), old, new, "default")


def _other(value: float | int) -> float | int:
    """Another number of the same type."""
    return value + 1 if isinstance(value, int) else (value * 2 if value else 1.0)


def _of_python(path: Path, text: str) -> Iterator[Mutation]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    raw = text.encode()

    def span(node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        first, last = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        return len(raw[:first].decode()), len(raw[:last].decode())

    for node in _reached(ast.parse(text)):
        for changed, kind in _changes(node):
            start, end = span(node)
            new = ast.unparse(changed)
            new = new if isinstance(changed, ast.Constant | ast.Call) else f"({new})"
            yield Mutation(path, node.lineno, start, end, text[start:end], new, kind)


def _reached(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that run: no annotations, decorators, messages, docstrings or type aliases."""
    if isinstance(node, ast.expr):
        yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "keywords") and not isinstance(node, ast.Call):
            continue
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Assert) and name == "msg":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_type(child):
                yield from _reached(child)


def _is_type(node: ast.AST) -> bool:
    """A subscript of a generic, such as `dict[str, int]` or `Literal[...]`, whose slice is no number."""
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and (node.value.id[:1].isupper() or node.value.id in ("dict", "list", "tuple", "set", "type"))
    )


def _changes(node: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_text(node):
        yield _with(node, op=ARITHMETIC[type(node.op)]()), "operator"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield _with(node, ops=[COMPARISONS[type(node.ops[0])]()]), "comparison"
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And()), "and/or"
    elif isinstance(node, ast.UnaryOp):
        if isinstance(node.op, ast.USub | ast.Not):
            yield node.operand, "sign" if isinstance(node.op, ast.USub) else "not"
    elif isinstance(node, ast.IfExp):
        yield _with(node, body=node.orelse, orelse=node.body), "branches"
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield _with(node, value=not node.value), "constant"
        elif isinstance(node.value, int | float):
            yield _with(node, value=_other(node.value)), "constant"
    elif isinstance(node, ast.Call):
        yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[tuple[ast.expr, str]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in CALLS:
        func = _with(node.func, **{"attr" if isinstance(node.func, ast.Attribute) else "id": CALLS[name]})
        if isinstance(node.func, ast.Attribute) or CALLS[name] not in ("mean", "square"):
            yield _with(node, func=func), "reduction"
    if name == "detach" and isinstance(node.func, ast.Attribute):
        yield node.func.value, "detach"
    first = node.args[:2]
    alike = all(isinstance(a, ast.Name | ast.Attribute | ast.Call | ast.BinOp) for a in first)
    if len(first) == 2 and alike and name not in NO_SWAP and ast.dump(first[0]) != ast.dump(first[1]):
        yield _with(node, args=[first[1], first[0], *node.args[2:]]), "argument order"


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _with(node: E, **fields: object) -> E:
    changed = copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
