"""Archives and compressed files as sources: members read, hostile ones refused, nothing written beside the cache."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from espalier.core.errors import InvalidInput
from espalier.data.readers.archive import Limits, check_directory, iterate_tar, iterate_zip, refuse_name
from espalier.data.readers.folder import find_sources
from espalier.data.readers.source import SkippedFile, SourceFile, suffix_of
from espalier.data.readers.unpacked import Unpacked

SUFFIXES = ("txt", "md")
SMALL = Limits(members=5, member_bytes=1000, total_bytes=3000, ratio=50.0)


def pack_zip(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def pack_tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def compress_zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def find(root: Path) -> tuple[list[SourceFile], dict[str, str]]:
    found, skipped = find_sources(root, suffixes=SUFFIXES, cache=root.parent / "cache")
    return found, reasons(skipped)


def reasons(skipped: list[SkippedFile]) -> dict[str, str]:
    return {item.uri: item.reason for item in skipped}


def test_members_of_every_kind_of_archive_are_sources_named_by_archive_and_path(root: Path) -> None:
    packings = {".tar": bytes, ".tar.gz": gzip.compress, ".tgz": gzip.compress, ".tar.bz2": bz2.compress}
    packings |= {".tar.xz": lzma.compress, ".tar.zst": compress_zstd}
    for suffix, pack in packings.items():
        (root / f"a{suffix}").write_bytes(pack(pack_tar({f"in/x{suffix}.txt": suffix.encode()})))
    (root / "a.zip").write_bytes(pack_zip({"in/b.txt": b"zip", "in/c.bin": b"no"}))
    found, skipped = find(root)
    assert {source.uri: source.read_bytes() for source in found} == {
        "a.zip!/in/b.txt": b"zip",
        **{f"a{suffix}!/in/x{suffix}.txt": suffix.encode() for suffix in packings},
    }
    assert [source.uri for source in found] == sorted(source.uri for source in found)
    assert skipped == {"a.zip!/in/c.bin": "no reader for .bin"}


def test_nothing_is_written_beside_the_archive(root: Path, tmp_path: Path) -> None:
    (root / "a.zip").write_bytes(pack_zip({"../out.txt": b"x", "/abs.txt": b"x", "good.txt": b"y"}))
    find(root)
    assert [path.name for path in root.iterdir()] == ["a.zip"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "root"]


def test_names_that_climb_or_are_absolute_are_refused(root: Path) -> None:
    names = ["../a.txt", "x/../../a.txt", "/a.txt", "C:\\a.txt", "..\\a.txt"]
    (root / "a.zip").write_bytes(pack_zip({**dict.fromkeys(names, b"x"), "good.txt": b"y"}))
    (root / "b.tar").write_bytes(pack_tar({**dict.fromkeys(names, b"x"), "fine.txt": b"z"}))
    found, skipped = find(root)
    assert [source.uri for source in found] == ["a.zip!/good.txt", "b.tar!/fine.txt"]
    assert len(skipped) == 10 and all(reason.startswith("refused: a") for reason in skipped.values())


@pytest.mark.parametrize("name", ["a\x00b.txt", "a\nb.txt", ".", ""])
def test_what_is_no_file_name_is_refused(name: str) -> None:
    assert refuse_name(name) == "refused: not a file name"


def test_links_and_devices_in_archives_are_refused(root: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.txt")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    (root / "a.tar").write_bytes(stream.getvalue() + b"")
    link = zipfile.ZipInfo("link.txt")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive_zip:
        archive_zip.writestr(link, "/etc/passwd")
        archive_zip.writestr("good.txt", "y")
    (root / "b.zip").write_bytes(stream.getvalue())
    found, skipped = find(root)
    assert [source.uri for source in found] == ["b.zip!/good.txt"]
    assert set(skipped.values()) == {"refused: a link or device in an archive"} and len(skipped) == 5


def test_archives_in_archives_are_read_to_a_depth_of_two(root: Path) -> None:
    deep = pack_zip({"c.txt": b"three deep"})
    inner = pack_tar({"b.txt": b"two deep", "deep.zip": deep}, "w:gz")
    (root / "a.zip").write_bytes(pack_zip({"a.txt": b"one deep", "inner.tgz": inner}))
    found, skipped = find(root)
    assert [source.uri for source in found] == ["a.zip!/a.txt", "a.zip!/inner.tgz!/b.txt"]
    assert skipped == {"a.zip!/inner.tgz!/deep.zip": "refused: archives nested more than 2 deep"}


def test_an_archive_that_was_listed_is_not_unpacked_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.zip").write_bytes(pack_zip({"a.txt": b"x", "b.bin": b"y"}))
    first = find(root)
    monkeypatch.setattr("espalier.data.readers.members.iterate_zip", lambda *_: pytest.fail("unpacked again"))
    assert find(root) == first


def test_a_member_that_is_gone_from_the_cache_is_unpacked_again(root: Path) -> None:
    (root / "a.zip").write_bytes(pack_zip({"a.txt": b"x"}))
    ((source,), _) = find(root)
    source.path.unlink()
    assert find(root)[0][0].read_bytes() == b"x"


def test_a_broken_archive_is_reported_and_the_rest_is_read(root: Path) -> None:
    (root / "a.zip").write_bytes(b"PK\x03\x04 broken")
    (root / "b.tar.gz").write_bytes(gzip.compress(pack_tar({"x.txt": b"x" * 5000}))[:-30])
    (root / "c.txt").write_text("fine")
    found, skipped = find(root)
    assert [source.uri for source in found] == ["c.txt"]
    assert skipped["a.zip"].startswith("unreadable: not a readable ZIP")
    assert skipped["b.tar.gz"].startswith("unreadable: ")


def test_a_broken_member_is_reported_and_the_others_are_read(root: Path) -> None:
    data = bytearray(pack_zip({"a.txt": b"good", "b.txt": b"AAAAAAAAAA"}, zipfile.ZIP_STORED))
    at = data.find(b"AAAAAAAAAA")
    data[at : at + 3] = b"BBB"  # its checksum is now wrong
    (root / "a.zip").write_bytes(data)
    found, skipped = find(root)
    assert [source.uri for source in found] == ["a.zip!/a.txt"]
    assert "does not unpack" in skipped["a.zip!/b.txt"]


def test_the_same_bytes_in_an_archive_and_beside_it_are_read_once(root: Path) -> None:
    (root / "a.zip").write_bytes(pack_zip({"a.txt": b"same"}))
    (root / "b.txt").write_bytes(b"same")
    found, skipped = find(root)
    assert [source.uri for source in found] == ["a.zip!/a.txt"]
    assert skipped == {"b.txt": "same bytes as a.zip!/a.txt"}


def test_hidden_members_are_passed_over_and_patterns_choose_members(root: Path) -> None:
    (root / "a.zip").write_bytes(pack_zip({".x/a.txt": b"1", "__MACOSX/b.txt": b"2", "in/c.txt": b"3", "d.txt": b"4"}))
    found, skipped = find_sources(root, suffixes=SUFFIXES, include=("*/in/*",), cache=root.parent / "cache")
    assert [source.uri for source in found] == ["a.zip!/in/c.txt"] and skipped == []


# Bombs


def test_a_zip_with_too_many_members_or_too_much_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(pack_zip({f"{n}.txt": b"x" for n in range(6)}))
    with pytest.raises(InvalidInput, match="6 members, more than 5"):
        list(iterate_zip(path, SMALL))
    path.write_bytes(pack_zip({f"{n}.txt": b"x" * 900 for n in range(4)}))
    with pytest.raises(InvalidInput, match="unpacks to more than 3000 bytes"):
        list(iterate_zip(path, SMALL))
    path.write_bytes(pack_zip({"a.txt": b"x" * 1001}))
    assert [member.refused for member in iterate_zip(path, SMALL)] == ["refused: unpacks to 1001 bytes, more than 1000"]


def test_a_tar_with_too_many_members_or_too_much_in_it_is_refused() -> None:
    for members, reason in [
        ({f"{n}.txt": b"x" for n in range(6)}, "more than 5 members"),
        ({f"{n}.txt": b"x" * 900 for n in range(4)}, "unpacks to more than 3000 bytes"),
    ]:
        with pytest.raises(InvalidInput, match=reason):
            list(iterate_tar(io.BytesIO(pack_tar(members)), 1000, SMALL))


def test_a_bomb_of_one_huge_member_is_refused_before_it_is_unpacked(root: Path) -> None:
    (root / "a.zip").write_bytes(pack_zip({"bomb.txt": bytes(100 << 20)}))
    (root / "b.tar.gz").write_bytes(gzip.compress(pack_tar({"bomb.txt": bytes(100 << 20)}), 9))
    (root / "c.txt").write_text("fine")
    found, skipped = find(root)
    assert [source.uri for source in found] == ["c.txt"]
    assert all("times its size" in skipped[uri] for uri in ("a.zip", "b.tar.gz"))
    assert sum(path.stat().st_size for path in (root.parent / "cache").rglob("*") if path.is_file()) < 1000


def test_a_zip_whose_members_share_their_bytes_is_refused(tmp_path: Path) -> None:
    """As in D. Fifield's bomb: many entries of the directory that point to one compressed block."""
    data = pack_zip({"a.txt": bytes(5000), "b.txt": bytes(5000)})
    directory = data.rfind(b"PK\x01\x02")
    first = data.find(b"PK\x01\x02")
    shared = bytearray(data)
    shared[directory + 42 : directory + 46] = shared[first + 42 : first + 46]
    path = tmp_path / "a.zip"
    path.write_bytes(shared)
    with pytest.raises(InvalidInput, match="overlap"):
        list(iterate_zip(path, Limits()))


def test_a_zip_that_lies_about_a_members_size_gives_no_more_than_it_said(root: Path) -> None:
    data = bytearray(pack_zip({"a.txt": b"x" * 5000}))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.find(mark) + offset
        data[at : at + 4] = (10).to_bytes(4, "little")
    (root / "a.zip").write_bytes(data)
    (root / "b.txt").write_text("fine")
    found, skipped = find(root)
    assert [source.uri for source in found] == ["b.txt"] and "does not unpack" in skipped["a.zip!/a.txt"]


def test_a_directory_too_large_for_its_members_is_refused_unread() -> None:
    data = pack_zip({f"{'n' * 60_000}{n}.txt": b"" for n in range(3)})
    with pytest.raises(InvalidInput, match="a directory of"):
        check_directory(io.BytesIO(data), len(data), 5)


def test_the_directory_of_a_zip64_is_measured_by_its_own_record() -> None:
    record = b"PK\x06\x06" + bytes(36) + (100).to_bytes(8, "little") + bytes(8)
    end = b"PK\x05\x06" + bytes(8) + b"\xff" * 4 + bytes(6)
    check_directory(io.BytesIO(bytes(10_000) + record + end), 10_000, 5)
    large = record.replace((100).to_bytes(8, "little"), (9_000).to_bytes(8, "little"))
    with pytest.raises(InvalidInput, match="a directory of 9000 bytes"):
        check_directory(io.BytesIO(bytes(10_000) + large + end), 10_000 + len(large + end), 5)


def test_a_tar_header_that_claims_gigabytes_is_refused() -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = b"x", 4 << 30
    with pytest.raises(InvalidInput, match="extended header"):
        list(iterate_tar(io.BytesIO(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)), 1000, Limits()))


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_a_compressed_bomb_is_cut_off(tmp_path: Path, packing: str) -> None:
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": compress_zstd}[packing]
    path = tmp_path / f"a.txt.{packing}"
    path.write_bytes(pack(bytes(40 << 20)))
    given = 0
    with pytest.raises(InvalidInput, match="unpacks to more than"), Unpacked(path, packing, 50.0, "a.txt") as stream:
        while piece := stream.read(1 << 20):
            given += len(piece)
    assert given <= 33 << 20


# Compressed files


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_a_compressed_file_is_read_as_what_it_holds(root: Path, packing: str) -> None:
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": compress_zstd}[packing]
    (root / f"a.txt.{packing}").write_bytes(pack(b"one") + pack(b"two"))
    ((source,), _) = find(root)
    assert source.read_bytes() == b"onetwo" and source.packing == packing
    with source.open() as stream:
        assert [stream.read(4), stream.read(4), stream.read(4)] == [b"onet", b"wo", b""]


def test_more_bytes_than_a_reader_may_hold_are_refused(root: Path) -> None:
    (root / "a.txt.gz").write_bytes(gzip.compress(b"x" * 101))
    ((source,), _) = find(root)
    with pytest.raises(InvalidInput, match="more than 100 bytes"):
        source.read_bytes(100)


def test_the_suffix_is_that_of_what_is_compressed() -> None:
    uris = ["a.jsonl.zst", "A.TXT.GZ", "a.tar.gz", "b.zip!/x.md", "x.gz", "s3/b.c/readme"]
    assert [suffix_of(uri) for uri in uris] == ["jsonl", "txt", "tar", "md", "", ""]


# Files that are not what they seem


def test_sparse_files_of_ten_gigabytes_are_refused_at_once(root: Path) -> None:
    for name in ("a.jsonl", "b.csv", "c.txt", "d.md"):
        with (root / name).open("wb") as stream:
            stream.truncate(10 << 30)
    (root / "e.txt").write_text("fine")
    found, skipped = find_sources(root, suffixes=("jsonl", "csv", "txt", "md"))
    assert [source.uri for source in found] == ["e.txt"]
    assert len(skipped) == 4 and all("refused: " in item.reason for item in skipped)


def test_fifos_sockets_and_link_loops_are_refused_without_being_opened(root: Path) -> None:
    os.mkfifo(root / "a.txt")
    (root / "b.txt").symlink_to(root / "c.txt")
    (root / "c.txt").symlink_to(root / "b.txt")
    (root / "d.txt").symlink_to("/dev/zero")
    (root / "loop").symlink_to(root)
    (root / "e.txt").write_text("fine")
    found, skipped = find(root)
    assert [source.uri for source in found] == ["e.txt"]
    assert set(skipped) == {"a.txt", "b.txt", "c.txt", "d.txt", "loop"}
    assert all(reason.startswith("refused: ") for reason in skipped.values())
