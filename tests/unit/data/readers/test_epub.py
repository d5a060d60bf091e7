from __future__ import annotations

from collections.abc import Callable

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.readers.epub import read_epub
from espalier.data.readers.source import SourceFile
from espalier.testing.files import write_epub, write_zip

MakeSource = Callable[[str, bytes], SourceFile]


def test_chapters_come_in_the_order_of_the_spine_each_a_page(source: MakeSource) -> None:
    metadata = "<dc:title>The Book</dc:title><dc:language>en</dc:language><dc:rights>CC BY 4.0</dc:rights>"
    chapters = [
        "<h1>One</h1><p>First.</p>",
        "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>",
    ]
    (document,) = read_epub(source("t.epub", write_epub(chapters, metadata)))
    assert document.text == "# One\n\nFirst.\n\f\n| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert [span.page for span in document.spans] == [1, 2]
    assert document.tags == {"title": "The Book", "epub.language": "en", "licence": "CC BY 4.0"}


def test_a_book_under_rights_management_is_refused(source: MakeSource) -> None:
    locked = '<encryption><CipherReference URI="book/c%200.xhtml"/></encryption>'
    data = write_epub(["<p>x</p>"], extra={"META-INF/encryption.xml": locked})
    with pytest.raises(InvalidInput, match="digital rights management"):
        list(read_epub(source("t.epub", data)))


def test_a_book_with_an_obfuscated_font_is_read(source: MakeSource) -> None:
    font = '<encryption><CipherReference URI="book/font.otf"/></encryption>'
    (document,) = read_epub(source("t.epub", write_epub(["<p>x</p>"], extra={"META-INF/encryption.xml": font})))
    assert document.text == "x"


@pytest.mark.parametrize(
    "data", [b"PK torn", write_zip({"a": "b"}), write_zip({"META-INF/container.xml": "<container/>"})]
)
def test_what_is_no_book_is_refused(source: MakeSource, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a readable EPUB"):
        list(read_epub(source("t.epub", data)))
