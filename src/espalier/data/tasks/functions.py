"""Finds the documented functions of a Python source by parsing it. Knows the language; runs nothing, imports nothing.

Legend: lines count from 0 here; a stretch of lines ends before its second number.
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from espalier.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Function:
    """One documented function, as stretches of its file's text, in characters.

    It stands at [start, end); its head (decorators, signature, docstring) ends at `body`.
    """

    name: str
    docstring: str
    start: int
    body: int
    end: int

    def head(self, text: str) -> str:
        """Decorators, signature and docstring, without the indentation of the class around them."""
        return _dedent(text[self.start : self.body])

    def source(self, text: str) -> str:
        """The whole function, without the indentation of the class around it."""
        return _dedent(text[self.start : self.end])


def find_functions(text: str, *, min_lines: int, max_lines: int) -> list[Function]:
    """Functions and methods with a docstring whose body after it has so many lines, in the order they stand.

    Those inside other functions are a part of them. Raises InvalidInput("not Python: ...") with the line.
    """
    offsets = _line_offsets(text)
    found = []
    for node in _documented(_parse(text)):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        last, rest = node.end_lineno or node.lineno, node.body[1:]
        doc_end = node.body[0].end_lineno or node.lineno
        # A body that begins on the docstring's line, or a docstring on the line of `def`, cannot be cut by lines.
        if not rest or rest[0].lineno <= doc_end or node.body[0].lineno <= node.lineno:
            continue
        if min_lines <= last - doc_end <= max_lines:
            docstring = ast.get_docstring(node) or ""
            found.append(Function(node.name, docstring, offsets[first - 1], offsets[doc_end], offsets[last]))
    return sorted(found, key=lambda function: function.start)


def _parse(text: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in other people's strings are none of our business
            return ast.parse(text)
    except SyntaxError as error:
        raise InvalidInput(f"not Python: {error.msg} at line {error.lineno}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidInput(f"not Python: {error or 'nested too deeply'}") from None


def _documented(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ClassDef):
            waiting += node.body
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            yield node


def _line_offsets(text: str) -> list[int]:
    """Where each line begins, and the end of the text. Lines as Python's parser counts them: by \\n, \\r\\n and \\r."""
    offsets, at = [0], 0
    for line in text.replace("\r\n", "\0\n").replace("\r", "\n").split("\n"):
        at += len(line) + 1
        offsets.append(min(at, len(text)))
    return offsets


def _dedent(text: str) -> str:
    return textwrap.dedent(text).strip("\n")
