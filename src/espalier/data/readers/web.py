"""HTML -> the text a person would read: the page's own `main` element where it has one, else of a long page what
trafilatura takes for its main content, else all of it.

What the page says of its use becomes tags: `robots` (its robots meta, `noai` included) and `licence` (rel=license).
Nothing is fetched: links, images and scripts are not followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.blocks import Block, Heading, Table, write_block, write_blocks
from espalier.data.readers.htmlblocks import read_blocks
from espalier.data.readers.plain import decode
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile
from espalier.data.readers.tabletext import flatten

# On short pages telling content from navigation is a guess that costs headings; and where little of the visible text is
# left, the extractor has most likely thrown content away.
SHORT_CHARS = 2_000
MIN_SHARE = 0.5
MAX_ELEMENTS = 30_000  # the extractor's time grows faster than the page
# A shorter block between others that were left out is most likely a stray match.
STRAY_CHARS = 25
MAX_TAG_CHARS = 200
_WORD = re.compile(r"\w+")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{2,40})", re.IGNORECASE)
_DECLARED_WITHIN_BYTES = 4_096
_ROBOTS = {"robots", "googlebot", "tdm-reservation", "ai-usage"}


@versioned(2)
def read_html(source: SourceFile) -> Iterator[Document]:
    """One document, tagged with the page's title, language, robots rules and licence."""
    tree = parse_html(decode_html(source.read_bytes()))
    text = extract_main(tree)
    if text:
        yield Document(source.document_id(1), text, source.span(end=len(text)), page_tags(tree))


def decode_html(data: bytes) -> str:
    """The page's characters: by the charset it declares if that is true, else as any text."""
    declared = _CHARSET.search(data[:_DECLARED_WITHIN_BYTES])
    if declared and not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")) and b"\x00" not in data[:64]:
        try:
            return data.decode(declared[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass
    return decode(data)


def parse_html(markup: str) -> Any:
    """The element tree (lxml); raises InvalidInput when there is none."""
    from lxml import etree, html

    # As bytes: lxml refuses a str that carries an encoding declaration.
    parser = html.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=False)
    try:
        return html.document_fromstring(markup.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        raise InvalidInput(f"not a readable HTML page: {error}") from None


def page_tags(tree: Any) -> dict[str, str]:
    """What a page says of itself: title, language, robots rules, licence."""
    tags = {"html.title": flatten(tree.findtext(".//title") or ""), "html.language": tree.get("lang") or ""}
    rules = [
        flatten(meta.get("content") or "") for meta in tree.iter("meta") if (meta.get("name") or "").lower() in _ROBOTS
    ]
    tags["robots"] = ", ".join(dict.fromkeys(filter(None, rules))).lower()
    licensed = (each for each in tree.iter("a", "link") if "license" in (each.get("rel") or "").lower().split())
    tags["licence"] = next((flatten(each.get("href") or "") for each in licensed), "")
    return {name: value[:MAX_TAG_CHARS] for name, value in tags.items() if value}


def extract_main(tree: Any) -> str:
    """Main content of a parsed page, as Markdown."""
    marked = tree.xpath("//main | //*[@role='main']") or tree.xpath("//article")
    if len(marked) == 1 and (text := visible_text(marked[0])):
        return text
    visible = visible_text(tree)
    if len(visible) < SHORT_CHARS or sum(1 for _ in tree.iter()) > MAX_ELEMENTS:
        return visible
    main = _extract_by_guess(tree)
    return main if len(main) >= MIN_SHARE * len(visible) else visible


def visible_text(root: Any) -> str:
    """All text but scripts, navigation, fields and footers."""
    return write_blocks(read_blocks(root))


def _extract_by_guess(tree: Any) -> str:
    """Those of the page's own blocks whose words trafilatura takes for content.

    So tables, lists and code keep their form, and a heading stays with what stands under it.
    """
    import copy

    import trafilatura

    # It cuts the tree it is given.
    found: str | None = trafilatura.extract(
        copy.deepcopy(tree), fast=True, favor_recall=True, include_comments=False, include_tables=True
    )
    if not found:
        return ""
    main = _words_of(found)
    blocks = list(read_blocks(tree))
    kept = [_is_in(block, main) for block in blocks]
    for index in range(len(blocks) - 2, -1, -1):
        kept[index] = kept[index] or (isinstance(blocks[index], Heading) and kept[index + 1])
    return write_blocks(
        block
        for index, block in enumerate(blocks)
        if kept[index] and (len(write_block(block)) >= STRAY_CHARS or any(kept[max(0, index - 1) : index + 2 : 2]))
    )


def _is_in(block: Block, main: str) -> bool:
    if not isinstance(block, Table):
        words = _words_of(block.text)
        return bool(words.strip()) and words in main
    cells = [_words_of(cell) for row in block.rows for cell in row if cell.strip()]
    return sum(cell in main for cell in cells) > len(cells) / 2


def _words_of(text: str) -> str:
    return f" {' '.join(_WORD.findall(text))} "
