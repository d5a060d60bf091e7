"""The rows a check looks at: lines of .jsonl files as they would be uploaded, or the examples of a dataset version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput, NotFound
from espalier.data.formats.format import encode_example
from espalier.data.readers.table import parse_object
from espalier.store.examples import example_files, read_examples

ROLES = ("train", "validation")
MAX_LINE_BYTES = 64 << 20  # a longer line is not held in memory, and no service takes it


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a dataset, as a service would be given it. `path` is None for what is not written yet."""

    role: str  # train or validation
    name: str
    path: Path | None


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """One row and where it stands; `problem` says why there is none. `bytes` is its length as a line."""

    where: str
    row: dict[str, Any] | None
    bytes: int
    problem: str = ""
    hint: str = ""


def find_parts(path: Path) -> tuple[list[Part], bool]:
    """The files to look at, and whether they are a dataset version's, whose examples must first be encoded.

    A .jsonl file is for training; of a folder, files with "valid" in their name are for validation, and those with
    "test" are left out. Raises NotFound.
    """
    if path.is_file():
        return [Part("train", path.name, path)], path.suffix == ".parquet"
    if (path / "data").is_dir():
        found = [
            Part(role, file.relative_to(path).as_posix(), file) for role in ROLES for file in example_files(path, role)
        ]
        return found, True
    files = sorted(path.glob("*.jsonl"))
    parts = [
        Part("validation" if "valid" in file.name else "train", file.name, file)
        for file in files
        if "test" not in file.name and file.name != "refused.jsonl"
    ]
    if not parts:
        raise NotFound(f"nothing to check at {path}", hint="a .jsonl file, a folder of them, or a dataset version")
    return parts, False


def read_lines(part: Part) -> Iterator[CheckedRow]:
    """The rows of a .jsonl file with their lines; a line that is no JSON object is a problem."""
    if part.path is None:
        return
    number = 0
    with part.path.open("rb") as stream:
        while raw := stream.readline(MAX_LINE_BYTES):
            number += 1
            size = len(raw)
            while not raw.endswith(b"\n") and (more := stream.readline(MAX_LINE_BYTES)):
                raw, size = more, size + len(more)
            yield _read_line(f"{part.name}:{number}", raw, size, first=number == 1)


def _read_line(where: str, raw: bytes, size: int, *, first: bool) -> CheckedRow:
    if size > MAX_LINE_BYTES:
        return CheckedRow(where, None, size, f"a line of {size} bytes", "shorten it, or cut it in pieces")
    if not raw.strip():
        return CheckedRow(where, None, size, "an empty line", "take it out")
    if first and raw.startswith(b"\xef\xbb\xbf"):
        return CheckedRow(where, None, size, "a byte order mark", "save it as UTF-8 without one")
    try:
        return CheckedRow(where, parse_object(raw.decode()), size)
    except UnicodeDecodeError as error:
        return CheckedRow(where, None, size, f"not UTF-8 at byte {error.start}", "convert it to UTF-8")
    except InvalidInput as error:
        return CheckedRow(where, None, size, error.message, error.hint or "mend that line")


def encode_part(part: Part, name: str) -> Iterator[CheckedRow]:
    """The examples of a dataset version's file as rows of format `name`; what it cannot hold is a problem."""
    if part.path is None:
        return
    for number, example in enumerate(read_examples(part.path), 1):
        where = f"{part.name}:{number} ({example.id})"
        try:
            row = encode_example(example, name)
        except InvalidInput as error:
            yield CheckedRow(where, None, 0, error.message, error.hint)
            continue
        yield CheckedRow(where, row, len(json.dumps(row, ensure_ascii=False).encode()) + 1)
