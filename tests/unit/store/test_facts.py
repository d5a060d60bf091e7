"""What is remembered of a file is forgotten as soon as the file is another."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from espalier.store import facts
from espalier.store.blobs import hash_file
from espalier.store.store import Store


def make_old(path: Path, text: str) -> Path:
    path.write_text(text)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return path


def test_a_file_is_hashed_once_while_it_stays_as_it_is(store: Store, tmp_path: Path) -> None:
    path, asked = make_old(tmp_path / "a", "one"), []

    def find(wanted: Path) -> str:
        asked.append(wanted)
        return hash_file(wanted)

    for _ in range(3):
        assert store.facts.derive("sha256", [path], find)[path] == hashlib.sha256(b"one").hexdigest()
    assert asked == [path]


def test_another_size_time_or_inode_is_another_file(store: Store, tmp_path: Path) -> None:
    path = make_old(tmp_path / "a", "one")
    before = store.facts.digests([path])[path]
    make_old(path, "longer")
    assert store.facts.digests([path])[path] == hashlib.sha256(b"longer").hexdigest() != before
    path.write_text("samesz")
    os.utime(path, (1_600_000_001, 1_600_000_001))
    assert store.facts.digests([path])[path] == hashlib.sha256(b"samesz").hexdigest()
    make_old(tmp_path / "b", "rename")
    os.utime(tmp_path / "b", (1_600_000_001, 1_600_000_001))
    (tmp_path / "b").replace(path)
    assert store.facts.digests([path])[path] == hashlib.sha256(b"rename").hexdigest()


def test_a_file_changed_a_moment_ago_is_read_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    stamp = path.stat()
    now_ns = stamp.st_mtime_ns + 500_000_000
    monkeypatch.setattr(facts, "time", SimpleNamespace(time_ns=lambda: now_ns))

    def find_slowly(wanted: Path) -> str:
        nonlocal now_ns
        now_ns += 10_000_000_000
        return hash_file(wanted)

    store.facts.derive("sha256", [path], find_slowly)
    path.write_text("two")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # a clock too coarse to tell the two writes apart
    assert store.facts.digests([path])[path] == hashlib.sha256(b"two").hexdigest()


def test_facts_of_one_file_do_not_mix(store: Store, tmp_path: Path) -> None:
    path = make_old(tmp_path / "a", "one")
    assert store.facts.derive("length", [path], lambda p: p.stat().st_size) == {path: 3}
    assert store.facts.derive("name", [path], lambda p: p.name) == {path: "a"}
    assert store.facts.derive("length", [path], lambda p: -1) == {path: 3}


def test_more_files_than_a_query_takes_are_all_remembered(store: Store, tmp_path: Path) -> None:
    paths = [make_old(tmp_path / f"{number:04}", str(number)) for number in range(1000)]
    first = store.facts.digests(paths)
    assert store.facts.derive("sha256", paths, lambda path: "asked again") == first
