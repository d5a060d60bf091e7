"""HTML -> the text a person would read: the page's own `main` element where it has one, else of a long page what
trafilatura takes for the main content, else all visible text.

Nothing is fetched: links, images and scripts are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.plain import decode
from espalier.data.readers.source import SourceFile
from espalier.data.readers.tabletext import write_rows

# On short pages telling content from navigation is a guess that costs headings; and where little of the visible text is
# left, the extractor has most likely thrown content away.
SHORT_CHARS = 2_000
MIN_SHARE = 0.5
_SILENT = ("script", "style", "noscript", "template", "head", "nav", "footer", "aside", "svg", "form")
_BLOCKS = {
    *(
        "address",
        "article",
        "blockquote",
        "br",
        "caption",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "figcaption",
        "h1",
        "h2",
    ),
    *(
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tr",
        "ul",
    ),
}


def read_html(source: SourceFile) -> Iterator[Document]:
    """One document, tagged with the page's title."""
    tree = parse_html(decode(source.path.read_bytes()))
    title = " ".join((tree.findtext(".//title") or "").split())
    text = extract_main(tree)
    if text:
        tags = {"html.title": title} if title else {}
        yield Document(source.document_id(1), text, source.span(end=len(text)), tags)


def parse_html(markup: str) -> Any:
    """The element tree (lxml); raises InvalidInput when there is none."""
    from lxml import etree, html

    # As bytes: lxml refuses a str that carries an encoding declaration.
    parser = html.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=False)
    try:
        return html.document_fromstring(markup.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        raise InvalidInput(f"not a readable HTML page: {error}") from None


def extract_main(tree: Any) -> str:
    """Main content of a parsed page: one block a line."""
    marked = tree.xpath("//main | //*[@role='main']") or tree.xpath("//article")
    if len(marked) == 1:
        return visible_text(marked[0])
    visible = visible_text(tree)
    if len(visible) < SHORT_CHARS:
        return visible
    import trafilatura

    main: str | None = trafilatura.extract(tree, fast=True, favor_recall=True, include_comments=False)
    return main if main and len(main) >= MIN_SHARE * len(visible) else visible


def visible_text(root: Any) -> str:
    """All text but scripts, navigation, forms and footers: a line a block, a table as `tabletext` writes it."""
    lines = [""]
    # A stack rather than recursion: a hostile page nests deeper than Python's.
    waiting: list[tuple[Any, bool]] = [(root, True)]
    while waiting:
        element, entering = waiting.pop()
        tag = element.tag if isinstance(element.tag, str) else ""
        if not entering:
            lines.append(_flat(element.tail)) if tag in _BLOCKS else _append(lines, _flat(element.tail))
            continue
        if element is not root:
            waiting.append((element, False))
        if not tag or tag in _SILENT:
            continue
        if tag == "table" and not element.xpath(".//table"):
            lines += write_rows([_cell_text(cell) for cell in row.iter("th", "td")] for row in element.iter("tr"))
            continue
        lines += _open_block(element, tag, lines)
        waiting.extend((child, True) for child in reversed(element))
    return "\n".join(line for line in (" ".join(line.split()) for line in lines) if line)


def _open_block(element: Any, tag: str, lines: list[str]) -> list[str]:
    if tag == "pre":
        return (element.text or "").split("\n")
    if tag in _BLOCKS:
        return [_flat(element.text)]
    _append(lines, (" " if tag in ("td", "th") else "") + _flat(element.text))
    return []


def _append(lines: list[str], text: str) -> None:
    lines[-1] += text


def _cell_text(cell: Any) -> str:
    return " ".join(cell.itertext())


def _flat(text: str | None) -> str:
    return (text or "").replace("\n", " ")
