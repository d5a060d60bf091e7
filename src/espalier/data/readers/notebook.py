"""Jupyter notebooks (nbformat 3 and 4): Markdown as it is, code fenced with its language, the text outputs under it.

Pictures, widgets and raw cells are left out; nothing is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.blocks import Block, Code, Heading, Paragraph, write_block
from espalier.data.readers.plain import decode
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile

MAX_OUTPUT_CHARS = 10_000
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@versioned(1)
def read_notebook(source: SourceFile) -> Iterator[Document]:
    """One document of all cells; tagged with the kernel's language."""
    try:
        notebook = json.loads(decode(source.read_bytes()))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"not a readable notebook: {error}"[:300]) from None
    if not isinstance(notebook, dict):
        raise InvalidInput("not a readable notebook: no JSON object")
    cells = notebook.get("cells")
    if not isinstance(cells, list):
        sheets = notebook.get("worksheets")  # format 3
        cells = [cell for sheet in _list(sheets) for cell in _list(_get(sheet, "cells"))]
    language = str(_get(_get(notebook, "metadata"), "language_info", "name") or _kernel(notebook) or "")
    text = "\n\n".join(filter(None, (_write(cell, language) for cell in cells)))
    if text.strip():
        tags = {"code_language": language} if language else {}
        yield Document(source.document_id(1), text, source.span(end=len(text)), tags)


def _write(cell: Any, language: str) -> str:
    kind = _get(cell, "cell_type")
    text = _joined(_get(cell, "source") or _get(cell, "input"))
    if kind == "markdown":
        return text.strip("\n")
    blocks: list[Block] = []
    if kind == "heading":
        level = _get(cell, "level")
        blocks.append(Heading(text, level if isinstance(level, int) else 1))
    elif kind == "code":
        blocks.append(Code(text, language))
        blocks += [Code(_COLOUR.sub("", output)[:MAX_OUTPUT_CHARS], "output") for output in _outputs(cell)]
    else:
        blocks.append(Paragraph(""))
    return "\n\n".join(filter(None, map(write_block, blocks)))


def _outputs(cell: Any) -> Iterator[str]:
    for output in _list(_get(cell, "outputs")):
        kind = _get(output, "output_type")
        if kind == "stream":
            yield _joined(_get(output, "text"))
        elif kind in ("error", "pyerr"):
            yield f"{_get(output, 'ename')}: {_get(output, 'evalue')}"
        else:
            yield _joined(_get(output, "data", "text/plain") or _get(output, "text"))


def _kernel(notebook: dict[str, Any]) -> object:
    return _get(_get(notebook, "metadata"), "kernelspec", "language")


def _get(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _joined(value: Any) -> str:
    """Notebooks keep a text as one string or as a list of lines."""
    if isinstance(value, list):
        return "".join(each for each in value if isinstance(each, str))
    return value if isinstance(value, str) else ""
