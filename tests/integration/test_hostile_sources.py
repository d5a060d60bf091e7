"""Hostile files among good ones: refused with a reason, within limits of time and memory, and nothing is written.

Every file is read as a build reads it, foreign formats in their own process.
"""

from __future__ import annotations

import io
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.errors import InvalidInput
from espalier.data.flow.batch import to_documents
from espalier.data.readers import sandbox
from espalier.data.readers.folder import find_sources
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.plugin import known_suffixes
from espalier.data.readers.problem import Problem
from espalier.data.readers.reading import read_source
from espalier.data.readers.sandbox import close_sandbox
from espalier.data.readers.source import SourceFile, hash_file

SECRET = "the-secret-of-this-machine"
MEMORY_BYTES = 512 << 20
OPTIONS = ReadOptions(max_seconds=200.0, max_memory_bytes=MEMORY_BYTES)  # no test waits for the time to be over
W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
S = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
LAUGHING = f'<!DOCTYPE d [<!ENTITY l0 "ha">{LAUGHS}]>'


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A machine to attack: a secret beside the sources, a home and a folder for temporary files."""
    place = tmp_path_factory.mktemp("machine")
    for name in ("sources", "home", "tmp"):
        (place / name).mkdir()
    (place / "secret.txt").write_text(SECRET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(place / "home"))
        patch.setenv("TMPDIR", str(place / "tmp"))
        patch.chdir(place)
        close_sandbox()
        yield place
        close_sandbox()


@pytest.fixture(autouse=True)
def folder(machine: Path) -> Iterator[Path]:
    """Where a test puts its sources; after it, nothing may lie anywhere else."""
    sources = machine / "sources"
    yield sources
    assert sorted(path.name for path in machine.iterdir()) == ["home", "secret.txt", "sources", "tmp"]
    assert [path for name in ("home", "tmp") for path in (machine / name).rglob("*")] == []
    shutil.rmtree(sources)
    sources.mkdir()


def read(path: Path, options: ReadOptions = OPTIONS) -> tuple[str, str]:
    """The text of a file and why there is none, or no more."""
    source = SourceFile(path, path.name, hash_file(path) if path.stat().st_size < 1 << 28 else "0" * 64)
    texts, reasons = [], []
    for item in read_source(source, options):
        if isinstance(item, Problem):
            reasons.append(f"{item.kind}: {item.message}")
        else:
            texts += [document.text for document in to_documents(item)]
    child = sandbox._children.get(os.getpid())
    if child:
        assert peak_bytes(child.process.pid) < MEMORY_BYTES + (256 << 20)
    return "\n".join(texts), "\n".join(reasons)


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


def package(path: Path, members: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def docx(path: Path, text: str, doctype: str = "") -> Path:
    body = f'<w:document xmlns:w="{W}"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>'
    return package(path, {"word/document.xml": doctype + body})


def xlsx(path: Path, text: str, doctype: str = "") -> Path:
    rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    return package(
        path,
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
            f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/></Types>',
            "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            f'<Relationship Id="r1" Type="{rel}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook xmlns="{S}" xmlns:r="{rel}"><sheets>'
            '<sheet name="a" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
            f'relationships"><Relationship Id="r1" Type="{rel}/worksheet" Target="worksheets/sheet1.xml"/>'
            "</Relationships>",
            "xl/worksheets/sheet1.xml": f'{doctype}<worksheet xmlns="{S}"><sheetData><row r="1">'
            f'<c r="A1" t="inlineStr"><is><t>{text}</t></is></c></row></sheetData></worksheet>',
        },
    )


def epub(path: Path, text: str, doctype: str = "") -> Path:
    page = f'{doctype}<html xmlns="http://www.w3.org/1999/xhtml"><body><p>{text}</p></body></html>'
    return package(
        path,
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
            '<rootfiles><rootfile full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles>'
            "</container>",
            "c.opf": '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="a" href="a.xhtml" '
            'media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine></package>',
            "a.xhtml": page,
        },
    )


def plain(path: Path, text: str, doctype: str = "") -> Path:
    path.write_text(f"{doctype}<html><body><main><p>{text}</p></main></body></html>")
    return path


MAKERS = {"docx": docx, "xlsx": xlsx, "epub": epub, "html": plain, "xhtml": plain, "xml": plain, "svg": plain}
FORMATS = sorted(set(MAKERS) & known_suffixes())


# XML


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_external_entity_reads_no_file_of_the_machine(folder: Path, machine: Path, suffix: str) -> None:
    doctype = f'<!DOCTYPE d [<!ENTITY x SYSTEM "file://{machine}/secret.txt">]>'
    text, _ = read(MAKERS[suffix](folder / f"a.{suffix}", "safe &x;", doctype))
    assert SECRET not in text


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_external_dtd_reads_no_file_of_the_machine(folder: Path, machine: Path, suffix: str) -> None:
    (folder / "evil.dtd").write_text(f'<!ENTITY x SYSTEM "file://{machine}/secret.txt">')
    doctype = f'<!DOCTYPE d SYSTEM "file://{folder}/evil.dtd">'
    text, _ = read(MAKERS[suffix](folder / f"a.{suffix}", "safe &x;", doctype))
    assert SECRET not in text


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_billion_laughs_stay_one(folder: Path, suffix: str) -> None:
    text, _ = read(MAKERS[suffix](folder / f"a.{suffix}", "&l11;", LAUGHING))
    assert len(text) < 100_000


@pytest.mark.parametrize("suffix", FORMATS)
def test_elements_nested_a_million_deep_are_read_or_refused(folder: Path, suffix: str) -> None:
    deep = "<b>" * 300_000 + "deep" + "</b>" * 300_000
    text, reason = read(MAKERS[suffix](folder / f"a.{suffix}", deep))
    assert text or reason


# Packages


PARTS = {
    "docx": "word/document.xml",
    "epub": "META-INF/container.xml",
    "odt": "content.xml",
    "pptx": "ppt/presentation.xml",
    "xlsx": "xl/workbook.xml",
}


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return b"<a>" + b" " * (300 << 20)


@pytest.mark.parametrize("suffix", sorted(set(PARTS) & known_suffixes()))
def test_a_bomb_in_a_package_is_refused(folder: Path, suffix: str, bomb: bytes) -> None:
    text, reason = read(package(folder / f"a.{suffix}", {PARTS[suffix]: bomb}))
    assert not text and "unpacks to more than" in reason


def test_a_package_that_names_a_member_outside_of_it_reads_nothing_there(folder: Path, machine: Path) -> None:
    opf = (
        '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="a" href="../../secret.txt" '
        f'media-type="application/xhtml+xml"/><item id="b" href="file://{machine}/secret.txt" '
        'media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/><itemref idref="b"/></spine>'
        "</package>"
    )
    path = epub(folder / "a.epub", "fine")
    with zipfile.ZipFile(path) as archive:
        members: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    text, _ = read(package(path, {**members, "c.opf": opf}))
    assert SECRET not in text


def test_an_archive_that_holds_itself_ends_at_the_second_level(folder: Path, machine: Path) -> None:
    """As R. Cox's quine does, for ever; here each level is made."""
    inner = b"the end"
    for _ in range(6):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("r.zip", inner)
        inner = stream.getvalue()
    (folder / "r.zip").write_bytes(inner)
    with pytest.raises(InvalidInput, match="nested more than 2 deep"):
        find_sources(folder, suffixes=("txt",), cache=folder / "cache")


# PDF


def write_pdf(path: Path, objects: dict[int, str], root: int = 1) -> Path:
    out = [b"%PDF-1.7\n"]
    offsets = {}
    for number, body in objects.items():
        offsets[number] = sum(map(len, out))
        out.append(f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1"))
    start = sum(map(len, out))
    out.append(f"xref\n0 {max(objects) + 1}\n0000000000 65535 f \n".encode())
    out += [f"{offsets.get(number, 0):010d} 00000 n \n".encode() for number in range(1, max(objects) + 1)]
    out.append(f"trailer\n<< /Size {max(objects) + 1} /Root {root} 0 R >>\nstartxref\n{start}\n%%EOF\n".encode())
    path.write_bytes(b"".join(out))
    return path


CATALOG = "<< /Type /Catalog /Pages 2 0 R >>"


@pytest.mark.parametrize(
    "pages",
    [
        "<< /Type /Pages /Kids [2 0 R] /Count 1 >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1000000000 >>",
        "<< /Type /Pages /Kids [2 0 R 2 0 R 2 0 R] /Count 2147483647 >>",
        "<< /Type /Pages /Kids [3 0 R] /Count -5 >>",
    ],
)
def test_page_trees_without_end_are_refused(folder: Path, pages: str) -> None:
    path = write_pdf(folder / "a.pdf", {1: CATALOG, 2: pages, 3: "<< /Type /Pages /Parent 2 0 R /Kids [2 0 R] >>"})
    text, reason = read(path)
    assert not text and reason


def test_a_stream_that_unpacks_to_gigabytes_is_refused(folder: Path) -> None:
    packer = zlib.compressobj(1)
    packed = b"".join([*(packer.compress(b"q " * (4 << 20)) for _ in range(128)), packer.flush()])  # 1 GiB of operators
    stream = f"<< /Length {len(packed)} /Filter /FlateDecode >>\nstream\n{packed.decode('latin-1')}\nendstream"
    page = "<< /Type /Page /Parent 2 0 R /Contents 4 0 R /MediaBox [0 0 9 9] >>"
    objects = {1: CATALOG, 2: "<< /Type /Pages /Kids [3 0 R] /Count 1 >>", 3: page, 4: stream}
    text, reason = read(write_pdf(folder / "a.pdf", objects))
    assert not text and reason


# Files that are not what they seem


def test_sparse_files_of_ten_gigabytes_are_refused_even_when_handed_to_their_reader(folder: Path) -> None:
    names = sorted({"csv", "docx", "html", "json", "pdf", "txt"} & known_suffixes())
    for suffix in names:
        with (folder / f"a.{suffix}").open("wb") as stream:
            stream.truncate(10 << 30)
        text, reason = read(folder / f"a.{suffix}")
        assert not text and reason.startswith("unreadable: "), suffix


def test_null_bytes_are_no_document(folder: Path) -> None:
    for suffix in sorted(known_suffixes() & {*MAKERS, "csv", "eml", "json", "jsonl", "md", "pdf", "rtf", "txt"}):
        path = folder / f"a.{suffix}"
        path.write_bytes(bytes(100_000))
        text, reason = read(path)
        assert not text.strip("\x00 \n") and (reason or not text), suffix


def test_a_csv_of_one_endless_line_is_passed_in_bounded_memory(folder: Path) -> None:
    path = folder / "a.csv"
    with path.open("wb") as stream:
        stream.write(b"text,n\n")
        for _ in range(64):
            stream.write(b"x" * (1 << 20))
        stream.write(b"\ngood,1\n")
    text, reason = read(path, ReadOptions(max_line_bytes=1 << 20))
    assert text == "good" and reason.startswith("long_line: ")


@pytest.mark.parametrize("suffix", sorted({*MAKERS, "pdf", "eml", "rtf", "msg", "xls", "odt"} & known_suffixes()))
def test_noise_is_read_or_refused_and_the_next_file_is_read(folder: Path, suffix: str) -> None:
    head = {"pdf": b"%PDF-1.7\n", "xls": bytes.fromhex("d0cf11e0a1b11ae1"), "msg": bytes.fromhex("d0cf11e0a1b11ae1")}
    noise = b"".join(zlib.crc32(number.to_bytes(4, "little")).to_bytes(4, "little") for number in range(20_000))
    path = folder / f"a.{suffix}"
    path.write_bytes(head.get(suffix, b"PK\x03\x04") + noise)
    read(path)
    assert read(plain(folder / "b.html", "A Wombat."))[0] == "A Wombat."
