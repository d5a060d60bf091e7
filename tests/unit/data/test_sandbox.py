"""Foreign formats in their own process: whatever a reader does to itself, the next file is read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from espalier.core.errors import MissingExtra
from espalier.core.plugins import find_plugins
from espalier.data.flow.batch import to_documents
from espalier.data.readers import sandbox
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.plugin import reader_id
from espalier.data.readers.problem import Problem
from espalier.data.readers.reading import read_source
from espalier.data.readers.sandbox import close_sandbox
from espalier.data.readers.source import SourceFile

MakeSource = Callable[[str, bytes], SourceFile]

HOSTILE = """
import ctypes, os, signal
from espalier.core.errors import MissingExtra
from espalier.core.types import Document
from espalier.data.readers.plugin import versioned

def document(source, text, number=1):
    return Document(source.document_id(number), text, source.span(end=len(text)))

@versioned(7)
def good(source):
    yield document(source, source.read_bytes().decode())

def segv(source):
    yield document(source, "first")
    ctypes.string_at(0)

def hang(source):
    yield document(source, "first")
    while True:
        pass

def alarm(source):
    yield document(source, "first")
    signal.raise_signal(signal.SIGALRM)

def greedy(source):
    hoard = []
    while True:
        hoard.append(bytearray(50_000_000))
    yield

def leave(source):
    os._exit(3)
    yield

def write(source):
    with open(source.path.parent / "planted.txt", "w") as stream:
        stream.write("x" * 100)
    yield document(source, "written")

def connect(source):
    import socket
    host, port = source.read_bytes().decode().split()
    with socket.create_connection((host, int(port)), timeout=5) as stream:
        stream.sendall(b"hello")
    yield document(source, "connected")

def remove(source):
    source.path.unlink()
    yield document(source, "removed")

def run(source):
    import subprocess
    done = subprocess.run(["cat"], input=b"through a pipe", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    yield document(source, done.stdout.decode())

def talk(source):
    print("B" * 1000, flush=True)
    os.write(1, b"E" * 1000)
    yield document(source, "said")

def flood(source):
    for number in range(1, 1000):
        yield document(source, "x" * 1_000_000, number)

def secret(source):
    yield document(source, os.environ.get("AWS_SECRET_ACCESS_KEY", "none"))

def lack(source):
    raise MissingExtra("lack needs a package", hint="pip install it")
    yield

def late(source):
    yield document(source, "before")
    raise KeyError("a bug")

def surrogate(source):
    yield document(source, "a\\ud800b")
"""
NAMES = [
    "good",
    "segv",
    "hang",
    "alarm",
    "greedy",
    "leave",
    "write",
    "connect",
    "remove",
    "run",
    "talk",
    "flood",
    "secret",
    "lack",
    "late",
    "surrogate",
]
# Whether the kernel of this machine has it, asked where asking changes nothing.
LANDLOCK = (
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from espalier.data.readers.landlock import *;sys.exit(give_up_changes() < 4)",
        ],
        check=False,
    ).returncode
    == 0
)
OPTIONS = ReadOptions(max_seconds=20.0, max_memory_bytes=300 << 20)


@pytest.fixture(autouse=True)
def plugins(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with readers for the suffixes NAMES, installed for this test and the process it starts."""
    site = tmp_path_factory.mktemp("site")
    (site / "hostile.py").write_text(HOSTILE)
    info = site / "hostile-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    points = "".join(f"{name} = hostile:{name}\n" for name in NAMES)
    (info / "entry_points.txt").write_text(f"[espalier.readers]\n{points}")
    monkeypatch.syspath_prepend(str(site))
    find_plugins.cache_clear()
    close_sandbox()
    yield
    close_sandbox()
    find_plugins.cache_clear()


def read(source: SourceFile, options: ReadOptions = OPTIONS) -> tuple[list[str], str]:
    texts: list[str] = []
    message = ""
    for item in read_source(source, options):
        if isinstance(item, Problem):
            assert item.kind == "unreadable" and item.uri == source.uri
            message = item.message
        else:
            texts += [document.text for document in to_documents(item)]
    return texts, message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("segv", r"it crashed its reader (SIGSEGV)"),
        ("leave", "its reader ended with exit code 3"),
        ("greedy", "reading it takes more than 300 MiB of memory"),
        ("write", "denied" if LANDLOCK else "File too large"),
    ],
)
def test_a_file_that_ruins_its_reader_is_reported_and_the_next_one_is_read(
    source: MakeSource, name: str, reason: str
) -> None:
    texts, message = read(source(f"a.{name}", b"x"))
    assert texts == [] and reason in message
    assert read(source("b.good", b"still here")) == (["still here"], "")


def test_a_reader_that_hangs_is_ended_and_the_next_file_is_read(source: MakeSource) -> None:
    assert read(source("a.hang", b"x"), ReadOptions(max_seconds=0.3)) == ([], "reading took more than 0.3 s")
    assert read(source("b.good", b"still here")) == (["still here"], "")


def test_a_reader_ended_by_its_own_alarm_took_too_long_and_is_asked_again_the_next_time(source: MakeSource) -> None:
    """The asker's limit comes first, unless the asker was held up."""
    (problem,) = read_source(source("a.alarm", b"x"), OPTIONS)
    assert isinstance(problem, Problem) and problem.transient
    assert problem.message == "reading took more than 20 s"


def test_a_reader_can_write_no_file(source: MakeSource, tmp_path: Path) -> None:
    read(source("a.write", b"x"))
    left = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert left == {"a.write": 1} if LANDLOCK else left.get("planted.txt", 0) == 0


@pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")
def test_a_reader_can_remove_no_file(source: MakeSource, tmp_path: Path) -> None:
    texts, message = read(source("a.remove", b"x"))
    assert texts == [] and "Permission denied" in message
    assert (tmp_path / "a.remove").exists()


@pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")
def test_a_reader_can_connect_nowhere(source: MakeSource) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        texts, message = read(source("a.connect", f"{host} {port}".encode()))
    assert texts == [] and "Permission denied" in message


def test_a_reader_can_run_a_program_through_pipes(source: MakeSource) -> None:
    assert read(source("a.run", b"x")) == (["through a pipe"], "")


def test_what_a_library_prints_does_not_reach_the_documents(source: MakeSource) -> None:
    assert read(source("a.talk", b"x")) == (["said"], "")


def test_a_file_that_gives_too_much_is_ended(source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_OUTPUT_BYTES", 20 << 20)
    texts, message = read(source("a.flood", b"x"))
    assert texts == [] and "it gives more than" in message


def test_a_reader_sees_no_secret_of_ours(source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    assert read(source("a.secret", b"x")) == (["none"], "")


def test_a_missing_package_is_no_property_of_the_file(source: MakeSource) -> None:
    with pytest.raises(MissingExtra, match="lack needs a package"):
        read(source("a.lack", b"x"))


def test_a_reader_that_raises_keeps_what_it_gave(source: MakeSource) -> None:
    assert read(source("a.late", b"x")) == (["before"], "KeyError: 'a bug'")


def test_half_a_surrogate_pair_does_not_stop_a_document(source: MakeSource) -> None:
    assert read(source("a.surrogate", b"x")) == (["a?b"], "")


def test_one_process_serves_many_files(source: MakeSource) -> None:
    read(source("a.good", b"1"))
    first = sandbox._children[os.getpid()].process.pid
    for number in range(20):
        assert read(source(f"{number}.good", b"x")) == (["x"], "")
    assert sandbox._children[os.getpid()].process.pid == first


def test_the_process_leaves_when_its_input_ends(source: MakeSource) -> None:
    read(source("a.good", b"1"))
    process = sandbox._children[os.getpid()].process
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def test_documents_of_another_process_are_what_the_reader_itself_gives(source: MakeSource) -> None:
    file = source("a.good", "ü".encode())
    apart = [item for item in read_source(file, OPTIONS) if isinstance(item, pa.RecordBatch)]
    here = [item for item in read_source(file, ReadOptions(sandbox=False)) if isinstance(item, pa.RecordBatch)]
    assert apart == here
    assert reader_id("a.good") == "good@7"
