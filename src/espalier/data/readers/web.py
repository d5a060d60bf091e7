"""HTML -> the text a person would read: trafilatura's main content, or all visible text where that finds too little.

Nothing is fetched: links, images and scripts are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.plain import decode
from espalier.data.readers.source import SourceFile

# Less than this share of the visible text and the extractor has most likely thrown content away with the navigation.
MIN_SHARE = 0.5
_SILENT = ("script", "style", "noscript", "template", "head", "nav", "footer", "aside", "svg", "form")
_BLOCKS = {
    *(
        "address",
        "article",
        "blockquote",
        "br",
        "dd",
        "div",
        "dl",
        "dt",
        "figcaption",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
    ),
    *("header", "hr", "li", "main", "ol", "p", "pre", "section", "table", "tr", "ul"),
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
    import trafilatura

    visible = visible_text(tree)  # first: the extractor prunes the tree
    main: str | None = trafilatura.extract(
        tree, fast=True, favor_recall=True, include_comments=False, include_tables=True, include_formatting=False
    )
    return main if main and len(main) >= MIN_SHARE * len(visible) else visible


def visible_text(tree: Any) -> str:
    """All text but scripts, styles, navigation, forms and footers; one block element a line."""
    parts: list[str] = []
    _collect(tree, parts)
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line)


def _collect(root: Any, parts: list[str]) -> None:
    # By hand rather than by recursion: a hostile page nests deeper than Python's stack.
    waiting: list[tuple[Any, bool]] = [(root, False)]
    while waiting:
        element, leaving = waiting.pop()
        tag = element.tag if isinstance(element.tag, str) else ""
        if leaving:
            parts.append("\n" if tag in _BLOCKS else "\t" if tag in ("td", "th") else "")
            parts.append((element.tail or "") if element is not root else "")
            continue
        if not tag or tag in _SILENT:
            parts.append((element.tail or "") if element is not root else "")
            continue
        parts.append("\n" if tag in _BLOCKS else "")
        parts.append(_flat(element.text) if tag != "pre" else element.text or "")
        waiting.append((element, True))
        waiting.extend((child, False) for child in reversed(element))


def _flat(text: str | None) -> str:
    return (text or "").replace("\n", " ")
