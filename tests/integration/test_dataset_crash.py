"""A dataset is the same bytes wherever it was built, and however often the build was killed on the way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from pathlib import Path

from espalier.data.build import build_dataset
from espalier.data.flow import shard
from espalier.data.spec import DataSpec

shard.SHARD_ROWS = 150  # many shards of little text

if __name__ == "__main__":
    recipe, out, cache = sys.argv[1:]
    build_dataset(DataSpec.model_validate_json(recipe), Path(out), folder=Path("."), cache=Path(cache))
"""
WORDS = [f"{a}{b}" for a in ("ma", "ti", "ro", "ke", "su", "lo") for b in ("n", "r", "st", "lly", "ve", "d")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sources and the script that builds from them."""
    folder = tmp_path_factory.mktemp("crash")
    rng = random.Random(5)
    (folder / "in").mkdir()
    rows: list[str] = []
    for number in range(2400):
        text = (
            " ".join(rng.choices(WORDS, k=rng.randint(20, 60))) + f"\n\nSent by {rng.choice(WORDS)}{number}@example.com"
        )
        rows.append(rng.choice(rows) if rows and rng.random() < 0.1 else text)
    for part in range(6):
        lines = (json.dumps({"text": text, "kind": rng.choice("abc")}) for text in rows[part::6])
        (folder / "in" / f"{part}.jsonl").write_text("\n".join(lines) + "\n{broken\n")
    (folder / "notes.md").write_text("# A heading\n\n" + "\n\n".join(rows[:20]))
    (folder / "build.py").write_text(SCRIPT)
    return folder


def recipe(**changes: object) -> str:
    told = {
        "source": {"path": ["in", "notes.md"]},
        "steps": [
            {"step": "normalise"},
            {"step": "boilerplate"},
            {"step": "redact"},
            {"step": "dedup"},
            {"step": "chunk", "size": 200},
        ],
        "task": {"kind": "text"},
        "split": {"stratify_by": ["kind"]},
        "workers": 2,
    }
    return json.dumps({**told, **changes})


def start(home: Path, out: Path, cache: Path, told: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "build.py", told, str(out), str(cache)]
    return subprocess.Popen(command, cwd=home, start_new_session=True, stderr=subprocess.PIPE)


def build(home: Path, folder: Path, told: str) -> str:
    process = start(home, folder / "out", folder / "cache", told)
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors.decode()[-2000:]
    return digest_folder(folder / "out")


def digest_folder(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    told = [(path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    assert any(name == "manifest.json" for name, _ in told)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


@pytest.fixture(scope="module")
def undisturbed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(home, tmp_path_factory.mktemp("undisturbed"), recipe())


def test_a_build_that_is_killed_again_and_again_ends_in_the_same_bytes(
    home: Path, undisturbed: str, tmp_path: Path
) -> None:
    rng = random.Random(11)
    killed = 0
    for _ in range(7):
        process = start(home, tmp_path / "out", tmp_path / "cache", recipe())
        enough = count_files(tmp_path) + rng.randint(0, 30)  # of more than 200, so that it is killed before it ends
        while process.poll() is None and count_files(tmp_path) < enough:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.03)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 3
    assert build(home, tmp_path, recipe()) == undisturbed


def test_one_worker_builds_what_two_build(home: Path, undisturbed: str, tmp_path: Path) -> None:
    assert build(home, tmp_path, recipe(workers=1)) == undisturbed


def test_the_order_sources_are_named_in_does_not_matter(home: Path, undisturbed: str, tmp_path: Path) -> None:
    assert build(home, tmp_path, recipe(source={"path": ["notes.md", "in"]})) == undisturbed


def test_ray_builds_what_this_machine_builds(home: Path, undisturbed: str, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    assert build(home, tmp_path, recipe(where="ray")) == undisturbed
