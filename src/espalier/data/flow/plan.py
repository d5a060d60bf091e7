"""A recipe's steps, keyed: what each depends on besides the rows it is given."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from espalier.core.ids import digest_of
from espalier.core.plugins import load_plugin
from espalier.core.types import Spec
from espalier.data.flow.chain import GROUP, Planned
from espalier.data.flow.step import CleanStep

# What turns bytes into rows or rows into others: a new version of one may give another outcome.
_LIBRARIES = (
    "charset-normalizer",
    "docling",
    "google-re2",
    "jinja2",
    "kreuzberg",
    "lxml",
    "lxml_html_clean",
    "numba",
    "numpy",
    "olefile",
    "orjson",
    "presidio-analyzer",
    "py3langid",
    "pyarrow",
    "pypdfium2",
    "python-calamine",
    "spacy",
    "striprtf",
    "tokenizers",
    "trafilatura",
    "xxhash",
)


def plan_steps(specs: Iterable[Spec], folder: Path) -> list[Planned]:
    """The steps of a recipe, in order; files they name are looked for in `folder`. Raises NotFound for those."""
    return [plan_step(spec, folder) for spec in specs]


def plan_step(spec: Any, folder: Path) -> Planned:
    """One step; `spec.step` is its name."""
    declared: CleanStep = load_plugin(GROUP, spec.step)
    named = [folder / name for field in declared.files for name in _as_names(getattr(spec, field))]
    key = digest_of(
        {
            "step": declared.id,
            "spec": spec.model_dump(mode="json"),
            "files": [hash_tree(path) for path in named],
            "besides": declared.fingerprint(spec, folder) if declared.fingerprint else "",
            "code": digest_code(),
        }
    )
    return Planned(spec.step, declared.id, spec.model_dump_json(), str(folder.absolute()), key)


def _as_names(value: str | Sequence[str]) -> Sequence[str]:
    return ([value] if value else []) if isinstance(value, str) else value


def hash_tree(path: Path) -> str:
    """sha256 of a file, or of a folder's files with their names; "absent" where nothing is (the step will say so)."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    if not path.is_dir():
        return "absent"
    inside = sorted(item for item in path.rglob("*") if item.is_file())
    return digest_of([[item.relative_to(path).as_posix(), hash_tree(item)] for item in inside])


@functools.cache
def digest_code() -> str:
    """sha256 of this package's code and the versions of what it computes with: an upgrade computes anew.

    Python's own is among them: it brings the Unicode tables, and parsers of HTML, mail and CSV.
    """
    told = hashlib.sha256(f"python {sys.version_info.major}.{sys.version_info.minor}\n".encode())
    root = Path(str(files("espalier")))
    for package in ("data", "tokens", "core"):
        for path in sorted((root / package).rglob("*.py")):
            told.update(path.read_bytes())
    for library in _LIBRARIES:
        try:
            told.update(f"{library} {version(library)}\n".encode())
        except PackageNotFoundError:
            told.update(f"{library} absent\n".encode())
    return told.hexdigest()
