"""The cache of builds is held within bounds, and nothing that a build still needs goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from espalier.data.build import build_dataset
from espalier.data.flow import cache as module
from espalier.data.flow import chain, intake
from espalier.data.flow.cache import open_cache
from espalier.data.flow.files import load_json, open_batches
from espalier.data.spec import DataSpec

DAY_S = 24 * 3600


def list_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {".lock"}


def age(folder: Path, days: float) -> None:
    """As if all of it had been used so long ago."""
    for path in folder.rglob("*"):
        then = path.stat().st_mtime - days * DAY_S
        os.utime(path, (then, then))


def keep(folder: Path, name: str, size_bytes: int = 10, days: float = 0) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size_bytes)
    then = path.stat().st_mtime - days * DAY_S - 1
    os.utime(path, (then, then))
    return path


def test_what_was_not_used_for_a_month_goes_and_what_was_stays(tmp_path: Path) -> None:
    for name in ("steps/aa/1.arrow", "steps/aa/1.dropped", "decisions/k/done.json", "decisions/k/000000.arrow"):
        keep(tmp_path, name, days=31)
    keep(tmp_path, "steps/aa/2.arrow", days=31)
    keep(tmp_path, "steps/aa/2.rows", days=2)  # looked up with the one above
    keep(tmp_path, "read/bb/3.json", days=29)
    with open_cache(tmp_path):
        pass
    assert list_files(tmp_path) == {"steps/aa/2.arrow", "steps/aa/2.rows", "read/bb/3.json"}
    assert not (tmp_path / "decisions" / "k").exists()


def test_beyond_the_bound_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    for days in range(1, 6):
        keep(tmp_path, f"steps/aa/{days}.arrow", size_bytes=100, days=days)
    with open_cache(tmp_path, max_bytes=350) as folder:
        assert open_batches(folder / "steps" / "aa" / "5.arrow") is None  # broken, and yet wanted
        assert load_json(folder / "steps" / "aa" / "9.arrow") is None
    assert list_files(tmp_path) == {f"steps/aa/{days}.arrow" for days in (1, 2, 5)}


def test_what_a_killed_build_left_unfinished_goes(tmp_path: Path) -> None:
    for name in ("work/work_1/x.npy", "split-abc/units.arrow", "steps/aa/.tmp_1", "read/aa/1.progress"):
        keep(tmp_path, name)
    keep(tmp_path, "steps/aa/1.arrow")
    with open_cache(tmp_path):
        pass
    assert list_files(tmp_path) == {"steps/aa/1.arrow"}


def test_nothing_goes_while_another_build_has_the_folder_open(tmp_path: Path) -> None:
    keep(tmp_path, "steps/aa/1.arrow", days=90)
    keep(tmp_path, "work/work_1/x.npy")
    script = (
        "import sys; from pathlib import Path; from espalier.data.flow.cache import open_cache\n"
        "with open_cache(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "open\n"
    with open_cache(tmp_path):
        pass
    assert list_files(tmp_path) == {"steps/aa/1.arrow", "work/work_1/x.npy"}
    other.communicate("")
    assert list_files(tmp_path) == set()  # the last one out prunes


def test_others_may_not_look_into_the_folder(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache" / "data") as folder:
        assert folder.stat().st_mode & 0o077 == 0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    texts = [f"Ticket {n}: the pump in hall {n} has made a noise like number {n * 7} since Monday." for n in range(12)]
    home = tmp_path / "home"
    home.mkdir()
    with ZipFile(home / "all.zip", "w") as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"{number}.txt", text)
    (home / "short.txt").write_text("short")
    return home


def test_a_build_finds_all_it_had_used_however_tight_the_bound(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Any] = [{"step": name} for name in ("normalise", "length", "dedup")]
    spec = DataSpec.model_validate({"task": {"kind": "text"}, "source": {"path": "."}, "steps": steps})
    other = spec.model_copy(update={"steps": spec.steps[:1]})
    monkeypatch.setattr(module.open_cache.__wrapped__, "__kwdefaults__", {"keep_s": 0.0, "max_bytes": 0})
    cache = tmp_path / "cache"
    build_dataset(spec, tmp_path / "one", folder=home, cache=cache)
    mine = list_files(cache)
    age(cache, 90)
    build_dataset(other, tmp_path / "two", folder=home, cache=cache)
    assert not any(name.startswith("decisions") for name in list_files(cache))
    build_dataset(spec, tmp_path / "three", folder=home, cache=cache)
    assert list_files(cache) == mine
    age(cache, 90)
    for owner, name in ((chain._Runner, "_make"), (intake, "_read")):
        monkeypatch.setattr(owner, name, None)  # nothing is made again
    build_dataset(spec, tmp_path / "four", folder=home, cache=cache)
    assert list_files(cache) == mine
