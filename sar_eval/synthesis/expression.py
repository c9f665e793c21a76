"""The language of `--filter` and `--rank`: comparisons of what judges and scorers say, never evaluated.

    hps > 0.27 and geneval.passed and not nsfw >= 0.2
    0.1 < shapes-soft <= 0.9 or clip:hessel + 0.1 * aesthetic > 1

A name stands for a score, `NAME.passed` for a yes or no. A minus between letters belongs to the name
(`shapes-soft`, which may be written `shapes_soft`, too); put spaces round one that subtracts. What is no
such name stands in quotes: `'mine.py:SCORER' > 3`.

Python's parser reads the text; of its tree only what stands here is taken over, into `conditions`.
"""

from __future__ import annotations

import ast
import keyword
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping

from sar_eval.documents import shorten
from sar_eval.errors import BadInput, UnknownName
from sar_eval.scoring import label, measure_source
from sar_eval.synthesis.conditions import (
    Arithmetic,
    Clause,
    Comparison,
    Condition,
    Constant,
    Filter,
    Joined,
    Literal,
    Not,
    Number,
    Passed,
    Rank,
    Score,
)

MAX_LENGTH, MAX_DEPTH = 4000, 50  # characters, and nested parts
WINDOW = 60  # characters that a message shows on either side of the fault
COMPARISONS: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
TOKEN = re.compile(
    r"""(?P<quoted>'[^']*'|"[^"]*")
    |(?P<name>[A-Za-z_]\w*(?:-[A-Za-z_]\w*)*             # shapes-soft
        (?::\w+(?:[.-]\w+)*?(?=\.(?:score|passed)\b|[^\w.-]|$))?)  # clip:vit-h, hps:v2.1, hps:v2.1.score
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<sign>[ ()<>=!+*/.-])
    |(?P<other>.)""",
    re.ASCII | re.VERBOSE,
)


def parse_filter(text: str, source_of: Callable[[str], str] = measure_source) -> Filter:
    """A filter as written on the command line or in a recipe; one without words lets everything pass.

    Args:
        text: untrusted.
        source_of: what a name stands for, spelt as `sar-eval list` does; raises UnknownName.

    Raises:
        BadInput: what is wrong, with the place marked in the text. UnknownName likewise.
    """
    reader = _Reader(text, "filter", source_of)
    if not reader.text.strip():
        return Filter(text, (), {})
    clauses = tuple(reader.clauses(reader.tree()))
    return Filter(text, clauses, reader.sources)


def parse_rank(text: str, source_of: Callable[[str], str] = measure_source) -> Rank:
    """A rank: the name of a measure or a sum, as `hps + 0.01 * aesthetic`; raises as `parse_filter`."""
    reader = _Reader(text, "rank", source_of)
    tree = reader.tree()
    expression = reader.number(tree, 0)
    if not reader.sources:
        raise reader.fault(tree, "names no judge or scorer: all draws would be equal")
    return Rank(text, expression, reader.sources)


class _Reader:
    """One text on its way into conditions."""

    def __init__(self, text: str, what: str, source_of: Callable[[str], str]) -> None:
        if len(text) > MAX_LENGTH:
            raise BadInput(f"a {what} of {len(text):,} characters, of at most {MAX_LENGTH:,}")
        self.text = re.sub(r"\s", " ", text)
        self.what, self.source_of = what, source_of
        self.sources: dict[str, str] = {}  # by name, in order of appearance
        self.written: dict[tuple[int, int], str] = {}  # names, by where they begin and end
        self.start = len(self.text) - len(self.text.lstrip())

    def tree(self) -> ast.expr:
        """What Python's parser makes of the text, in which `_` stand for the letters of names."""
        code = TOKEN.sub(self._veiled, self.text)[self.start :]
        if not code:
            raise BadInput(f"an empty {self.what}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                return ast.parse(code, mode="eval").body
        except SyntaxError as error:
            column = (error.offset or 1) - 1 + self.start
            hint = " (is equal: ==)" if self.text[column : column + 1] == "=" else ""
            raise self._fault_at(column, 1, f"cannot be read: {error.msg}{hint}") from error
        except (ValueError, RecursionError, MemoryError, Warning) as error:
            raise BadInput(f"the {self.what} cannot be read: {error or type(error).__name__}") from error

    def _veiled(self, found: re.Match[str]) -> str:
        """The token as Python's parser may see it, of the same length."""
        token = found[0]
        if found["other"]:
            hint = {"&": ": write `and`", "|": ": write `or`"}.get(token, "")
            raise self._fault_at(found.start(), 1, f"has a character that means nothing here{hint}")
        if found["number"] or found["sign"] or keyword.iskeyword(token):
            return token
        self.written[found.span()] = token[1:-1] if found["quoted"] else token
        return "_" * len(token)

    def clauses(self, node: ast.expr) -> Iterator[Clause]:
        """The conditions that are joined by `and` on the outside."""
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for part in node.values:
                yield from self.clauses(part)
        else:
            first, last = self._place(node)
            yield Clause(" ".join(self.text[first:last].split()), self.condition(node, 0))

    def condition(self, node: ast.expr, depth: int) -> Condition:
        """What is true or false."""
        self._check_depth(node, depth)
        match node:
            case ast.Constant(value=bool(value)):
                return Constant(value)
            case ast.UnaryOp(op=ast.Not()):
                return Not(self.condition(node.operand, depth + 1))
            case ast.BoolOp():
                parts = tuple(self.condition(part, depth + 1) for part in node.values)
                return Joined(min if isinstance(node.op, ast.And) else max, parts)
            case ast.Compare():
                return self._comparison(node, depth)
            case ast.Attribute() if self._attribute(node) == "passed":
                return Passed(self._name(node.value))
        raise self.fault(node, "is not true or false: compare it, as NAME > 0.5, or ask for NAME.passed")

    def _comparison(self, node: ast.Compare, depth: int) -> Condition:
        """A chain `a < b < c` is `a < b and b < c`."""
        numbers = [self.number(part, depth + 1) for part in (node.left, *node.comparators)]
        parts: list[Condition] = []
        for operation, left, right in zip(node.ops, numbers[:-1], numbers[1:], strict=True):
            if type(operation) not in COMPARISONS:
                raise self.fault(node, "compares by something else than < <= > >= == !=")
            parts.append(Comparison(COMPARISONS[type(operation)], left, right))
        return parts[0] if len(parts) == 1 else Joined(min, tuple(parts))

    def number(self, node: ast.expr, depth: int) -> Number:
        """What stands for a number."""
        self._check_depth(node, depth)
        match node:
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                return self._literal(node)
            case ast.UnaryOp(op=ast.USub()):
                return Arithmetic(operator.sub, Literal(0.0), self.number(node.operand, depth + 1))
            case ast.UnaryOp(op=ast.UAdd()):
                return self.number(node.operand, depth + 1)
            case ast.BinOp() if type(node.op) in ARITHMETIC:
                parts = self.number(node.left, depth + 1), self.number(node.right, depth + 1)
                return Arithmetic(ARITHMETIC[type(node.op)], *parts)
            case ast.Name():
                return Score(self._name(node))
            case ast.Attribute() if self._attribute(node) == "score":
                return Score(self._name(node.value))
            case ast.Attribute():
                raise self.fault(
                    node, "is true or false, no number: write NAME.passed alone, or not NAME.passed"
                )
        raise self.fault(node, "is no number: write a score's name, a number, or + - * / of them")

    def _literal(self, node: ast.Constant) -> Literal:
        try:
            value = float(node.value)  # type: ignore[arg-type]
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self.fault(node, "is too large a number")
        return Literal(value)

    def _name(self, node: ast.expr) -> str:
        """The name of a measure, noted with what it stands for."""
        first, last = self._place(node)
        written = self.written.get((first, last), "") if isinstance(node, ast.Name) else ""
        if not written:
            raise self.fault(node, "is no name of a judge or scorer")
        try:
            source = self.source_of(written)
        except UnknownName as error:
            minus = "-" in written and "'" not in self.text[first:last]
            hint = " (put spaces round a minus that subtracts)" if minus else ""
            raise UnknownName(self._shown(first, last - first, f"{error}{hint}")) from error
        name = label(source)
        if self.sources.setdefault(name, source) != source:
            raise self.fault(
                node, f"has the name {name!r}, as {self.sources[name]} has: rename one of the files"
            )
        return name

    def _attribute(self, node: ast.Attribute) -> str:
        """`score` or `passed`."""
        _, last = self._place(node)
        attribute = self.written.get((last - len(node.attr), last), "")
        if attribute not in ("score", "passed"):
            raise self.fault(node, "asks for something else than NAME.score or NAME.passed")
        return attribute

    def _check_depth(self, node: ast.expr, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self.fault(node, f"lies deeper than {MAX_DEPTH} nested parts")

    def _place(self, node: ast.expr) -> tuple[int, int]:
        """Where a node begins and ends in the text, which is one line."""
        return node.col_offset + self.start, (node.end_col_offset or node.col_offset) + self.start

    def fault(self, node: ast.expr, why: str) -> BadInput:
        """What is wrong with a part of the text, to be raised."""
        first, last = self._place(node)
        part = " ".join(self.text[first:last].split())
        return self._fault_at(first, last - first, f"{shorten(part)} {why}")

    def _fault_at(self, column: int, length: int, why: str) -> BadInput:
        return BadInput(self._shown(column, length, why))

    def _shown(self, column: int, length: int, why: str) -> str:
        """The message, and the text around the fault with marks below it."""
        begin, end = max(0, column - WINDOW), min(len(self.text), column + WINDOW)
        cut = ("..." if begin else "", "..." if end < len(self.text) else "")
        part = "".join(c if c.isascii() else "?" for c in self.text[begin:end])
        marks = " " * (len(cut[0]) + column - begin) + "^" * max(1, min(length, end - column))
        return f"{self.what}: {why}\n  {cut[0]}{part}{cut[1]}\n  {marks}"
