"""EPUB (2 and 3): the documents of its spine in order, a chapter a page, read as HTML.

Title, language and rights become tags.

A book under digital rights management is refused; fonts obfuscated by their foundry are nothing we read.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from espalier.core.errors import InvalidInput
from espalier.core.types import Document
from espalier.data.readers.container import Package, attribute, local_name, open_zip
from espalier.data.readers.paged import join_pages
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile
from espalier.data.readers.tabletext import flatten
from espalier.data.readers.web import decode_html, parse_html, visible_text

MAX_CHAPTERS = 5_000
MAX_TAG_CHARS = 200
_PAGES = re.compile(r"application/xhtml\+xml|text/html|application/x-dtbook\+xml")
_TAGS = {"title": "title", "language": "epub.language", "rights": "licence", "creator": "epub.creator"}


@versioned(1)
def read_epub(source: SourceFile) -> Iterator[Document]:
    """One document, a page for each document of the spine that is part of the linear reading."""
    with open_zip(io.BytesIO(source.read_bytes()), "EPUB") as package:
        path = _opf_path(package)
        opf = package.xml(path)
        locked = _locked(package)
        texts = []
        for name in _spine(opf, path)[:MAX_CHAPTERS]:
            if name in locked:
                raise InvalidInput("encrypted: its chapters are under digital rights management")
            if name in package:
                tree = parse_html(decode_html(package.read(name)))
                bodies = tree.xpath("//body")
                texts.append(visible_text(bodies[0] if bodies else tree))
        tags = _read_tags(opf)
    yield from join_pages(source, texts, tags)


def _opf_path(package: Package) -> str:
    for each in package.xml("META-INF/container.xml").iter():
        if local_name(each) == "rootfile" and (path := attribute(each, "full-path")):
            return path
    raise InvalidInput("not a readable EPUB: its container names no package file")


def _spine(opf: Any, path: str) -> list[str]:
    """The names of the spine's documents in order."""
    folder = posixpath.dirname(path)
    manifest: dict[str, str] = {}
    order: list[str] = []
    for each in opf.iter():
        if local_name(each) == "item" and _PAGES.match(attribute(each, "media-type")):
            manifest[attribute(each, "id")] = posixpath.normpath(
                posixpath.join(folder, unquote(attribute(each, "href")))
            )
        elif local_name(each) == "itemref" and attribute(each, "linear") != "no":
            order.append(attribute(each, "idref"))
    return [manifest[name] for name in order if name in manifest]


def _locked(package: Package) -> frozenset[str]:
    name = "META-INF/encryption.xml"
    if name not in package:
        return frozenset()
    links = (each for each in package.xml(name).iter() if local_name(each) == "CipherReference")
    return frozenset(unquote(attribute(each, "URI")) for each in links)


def _read_tags(opf: Any) -> dict[str, str]:
    tags: dict[str, str] = {}
    for each in opf.iter():
        name = _TAGS.get(local_name(each), "")
        if name and name not in tags and (text := flatten(each.text or "")):
            tags[name] = text[:MAX_TAG_CHARS]
    return tags
