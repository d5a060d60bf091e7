"""A dataset is the same bytes wherever it was built, and however often the build was killed on the way."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # many processes, one after the other

SCRIPT = """
import os
import signal
import sys
from pathlib import Path

from espalier.data.build import build_dataset
from espalier.data.flow import shard
from espalier.data.spec import DataSpec

shard.SHARD_ROWS = 150  # many shards of little text
recipe, out, cache, deadly, when = sys.argv[1:]
rename = Path.replace


def count_whole(folder):
    # But for those that a build makes for itself, which a killed one leaves behind.
    kept = [path for path in folder.glob("*") if not path.name.startswith(("work", "split-"))]
    files = [file for path in kept for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return sum(not file.name.startswith(".") for file in files)


def rename_or_die(path, target):
    # Wherever a file becomes whole, here or in a worker: once so many are, all processes are killed at once.
    if when == "after":
        rename(path, target)
    if sum(count_whole(Path(folder)) for folder in (out, cache)) >= int(deadly):
        os.killpg(0, signal.SIGKILL)
    if when == "before":
        rename(path, target)


if deadly != "0":
    Path.replace = rename_or_die

if __name__ == "__main__":
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


def run(home: Path, folder: Path, told: str, *, deadly: int = 0, when: str = "") -> tuple[int, str]:
    """How the build in `folder` ended, and its last words; it dies before or after file number `deadly` is whole."""
    command = [sys.executable, "build.py", told, str(folder / "out"), str(folder / "cache"), str(deadly), when]
    process = subprocess.Popen(command, cwd=home, start_new_session=True, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=600)  # until its workers are gone as well: they have the pipe too
    return process.returncode, errors.decode()[-2000:]


def build(home: Path, folder: Path, told: str) -> str:
    code, errors = run(home, folder, told)
    assert code == 0, errors
    return digest_folder(folder / "out")


def digest_folder(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    told = [(path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    assert any(name == "manifest.json" for name, _ in told)
    return hashlib.sha256(repr(told).encode()).hexdigest()


@pytest.fixture(scope="module")
def whole(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a build that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    build(home, folder, recipe())
    return folder


@pytest.fixture(scope="module")
def undisturbed(whole: Path) -> str:
    return digest_folder(whole / "out")


def test_a_build_that_is_killed_again_and_again_ends_in_the_same_bytes(
    home: Path, whole: Path, undisturbed: str, tmp_path: Path
) -> None:
    written, made = (
        sum(path.is_file() and not path.name.startswith(".") for path in (whole / name).rglob("*"))
        for name in ("out", "cache")
    )
    deaths = [made * part // 6 for part in range(1, 6)]  # while sources are read, steps, decisions, examples made ...
    deaths += [made + 2, made + written - 1]  # ... and while the version is written, up to its manifest
    for number, deadly in enumerate(deaths):
        code, errors = run(home, tmp_path, recipe(), deadly=deadly, when=("after", "before")[number % 2])
        assert code == -signal.SIGKILL, errors
    assert build(home, tmp_path, recipe()) == undisturbed


def test_one_worker_builds_what_two_build(home: Path, undisturbed: str, tmp_path: Path) -> None:
    assert build(home, tmp_path, recipe(workers=1)) == undisturbed


def test_the_order_sources_are_named_in_does_not_matter(home: Path, undisturbed: str, tmp_path: Path) -> None:
    assert build(home, tmp_path, recipe(source={"path": ["notes.md", "in"]})) == undisturbed


def test_ray_builds_what_this_machine_builds(home: Path, undisturbed: str, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    assert build(home, tmp_path, recipe(where="ray")) == undisturbed
