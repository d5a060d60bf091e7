"""Where the kernels come from, and that everything goes on without them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.nn.kernels import compiling
from espalier.nn.kernels.compiling import SWITCH, kernels_in_use

pytestmark = pytest.mark.usefixtures("_fresh")


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What this process has loaded is another test's, and what a test makes of it here is no other's."""
    monkeypatch.delenv(SWITCH, raising=False)
    compiling._load.cache_clear()
    yield
    compiling._load.cache_clear()


@pytest.fixture
def needs_compiler() -> None:
    if kernels_in_use()[0] != "compiled":
        pytest.skip(kernels_in_use()[1])
    compiling._load.cache_clear()


def test_the_switch_turns_them_off_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "off")
    assert kernels_in_use() == ("torch", f"{SWITCH} is off")


def test_without_a_compiler_torch_computes_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    which, why = kernels_in_use()
    assert which == "torch"
    assert "no C compiler" in why


def test_a_compiler_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit 0\necho "no space" >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(compiler.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    which, why = kernels_in_use()
    assert which == "torch"
    assert "no space" in why
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_is_no_error(
    needs_compiler: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kernels_in_use()[0] == "torch"


def test_several_processes_may_compile_at_once(needs_compiler: None, tmp_path: Path) -> None:
    """A compiler that takes its time and hands out what was built before: only one library, whole, is left."""
    library = compiling.kernels().library
    assert library is not None
    built = library._name  # the cache may hold others, of other sources, or half compiled by another process
    compiler = tmp_path / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo slow 1.0 && exit 0\n'
        f'while [ "$1" != -o ]; do shift; done\nhead -c 100 "{built}" > "$2"; sleep 1; cp "{built}" "$2"\n'
    )
    compiler.chmod(0o755)
    script = "from espalier.nn.kernels.compiling import kernels_in_use; print(*kernels_in_use())"
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": f"{compiler.parent}:{os.environ['PATH']}",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in running:
        said, complained = process.communicate(timeout=120)
        assert said.startswith("compiled slow 1.0")
        assert complained == ""
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["kernels.so"]
