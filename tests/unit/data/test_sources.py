from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.errors import InvalidInput, NotFound
from espalier.data.readers.folder import find_sources

SUFFIXES = ("txt", "md")


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_files_come_sorted_by_uri_whatever_the_folder_depth(tmp_path: Path) -> None:
    write(tmp_path, b_txt="1", a__z_txt="2", a_md="3", a__b__c_txt="4")
    found, _ = find_sources(tmp_path, suffixes=SUFFIXES)
    assert [source.uri for source in found] == ["a.md", "a/b/c.txt", "a/z.txt", "b.txt"]


def test_a_file_without_a_reader_is_reported_with_its_suffix(tmp_path: Path) -> None:
    write(tmp_path, a_txt="1", b_xsd="2", LICENSE="3")
    found, skipped = find_sources(tmp_path, suffixes=SUFFIXES)
    assert [source.uri for source in found] == ["a.txt"]
    assert {item.uri: item.reason for item in skipped} == {
        "LICENSE": "no reader for a file without a suffix",
        "b.xsd": "no reader for .xsd",
    }


def test_patterns_choose_and_leave_out(tmp_path: Path) -> None:
    write(tmp_path, in__a_txt="1", in__old__b_txt="2", out__c_txt="3")
    found, skipped = find_sources(tmp_path, suffixes=SUFFIXES, include=("in/*",), exclude=("*/old/*",))
    assert [source.uri for source in found] == ["in/a.txt"] and skipped == []


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, a_txt="1")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "b.txt").write_text("2")
    (tmp_path / ".c.txt").write_text("3")
    found, skipped = find_sources(tmp_path, suffixes=SUFFIXES)
    assert [source.uri for source in found] == ["a.txt"] and skipped == []


def test_a_symbolic_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret.txt"
    root.mkdir()
    secret.write_text("not yours")
    (root / "a.txt").write_text("1")
    (root / "b.txt").symlink_to(secret)
    (root / "c").symlink_to(tmp_path)
    found, skipped = find_sources(root, suffixes=SUFFIXES)
    assert [source.uri for source in found] == ["a.txt"]
    assert [item.uri for item in skipped] == ["b.txt", "c"]
    assert all("leads out of the source folder" in item.reason for item in skipped)


def test_a_folder_that_may_not_be_looked_into_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a_txt="1")
    (tmp_path / "closed").mkdir()
    listed = os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:  # whoever runs the tests may be allowed to look anywhere
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found, skipped = find_sources(tmp_path, suffixes=SUFFIXES)
    assert [source.uri for source in found] == ["a.txt"]
    assert [(item.uri, item.reason) for item in skipped] == [("closed/", "unreadable: Permission denied")]


def test_a_symbolic_link_within_the_folder_is_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path, a_txt="1")
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    found, skipped = find_sources(tmp_path, suffixes=SUFFIXES)
    assert [source.uri for source in found] == ["a.txt"]
    assert skipped[0].reason == "same bytes as a.txt"


def test_an_empty_folder_is_refused_and_the_hint_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refusal:
        find_sources(tmp_path, suffixes=SUFFIXES)
    assert "nothing to read" in refusal.value.message
    assert ".md, .txt" in refusal.value.hint and refusal.value.where == str(tmp_path)


def test_a_folder_of_unknown_files_is_refused_with_their_reasons(tmp_path: Path) -> None:
    write(tmp_path, a_zip="1", b_exe="2")
    with pytest.raises(InvalidInput, match=r"a\.zip: no reader for \.zip"):
        find_sources(tmp_path, suffixes=SUFFIXES)


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file or folder"):
        find_sources(tmp_path / "nowhere", suffixes=SUFFIXES)


def test_too_large_and_empty_files_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, a_txt="1", b_txt="12345", c_txt="")
    found, skipped = find_sources(tmp_path, suffixes=SUFFIXES, max_file_bytes=4)
    assert [source.uri for source in found] == ["a.txt"]
    assert [item.reason for item in skipped] == [
        "refused: 5 bytes, more than max_file_bytes (4)",
        "unreadable: the file is empty",
    ]


def test_one_file_may_be_the_root(tmp_path: Path) -> None:
    write(tmp_path, a_txt="1", b_txt="2")
    found, _ = find_sources(tmp_path / "b.txt", suffixes=SUFFIXES)
    assert [source.uri for source in found] == ["b.txt"]


def test_the_same_bytes_give_the_same_document_ids_under_another_name(tmp_path: Path) -> None:
    write(tmp_path, one__a_txt="same", two__b_txt="same")
    one, _ = find_sources(tmp_path / "one", suffixes=SUFFIXES)
    two, _ = find_sources(tmp_path / "two", suffixes=SUFFIXES)
    assert one[0].document_id(1) == two[0].document_id(1) != one[0].document_id(2)
