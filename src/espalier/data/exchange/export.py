"""`export_dataset`: a dataset version as files other tools read. What a format cannot hold is listed, never lost."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from espalier.core.errors import Conflict, InvalidInput
from espalier.core.types import Example
from espalier.data.exchange.containers import Container, check_container, open_container, suffix_of_container
from espalier.data.exchange.hub import write_hub_card
from espalier.data.exchange.report import REFUSED, ExportReport
from espalier.data.formats.format import encode_example, find_format
from espalier.data.manifest import name_reason
from espalier.store.disk import new_file
from espalier.store.examples import SPLITS, read_examples


def export_dataset(
    folder: Path, out: Path, *, format: str = "", container: Container = "jsonl", splits: tuple[str, ...] = SPLITS
) -> ExportReport:
    """Write the examples of a dataset version to files in the new folder `out`, one for each split that has any.

    format: of `data.formats`; by default openai-chat, preference or text, by what the first example is. With the
    container "hf" the folder is a Hugging Face dataset: data/*.parquet and a README.md with its card.

    The same version gives the same bytes; memory does not grow with it. Raises NotFound without a dataset, Conflict
    when `out` holds files, InvalidInput for an unknown format or one the container cannot hold, or when nothing fits.
    """
    if out.exists() and any(out.iterdir()):
        raise Conflict(f"{out} is not empty", hint="name a new folder: nothing is overwritten")
    name = find_format(format or guess_format(folder)).name
    check_container(container, name)
    written: dict[str, int] = {}
    files = []
    with ExitStack() as stack:
        refusals = Refusals(out / REFUSED, stack)
        for split in splits:
            path = out / _file_name(split, container)
            if count := _write_split(read_examples(folder, split), name, container, path, refusals):
                written[split] = count
                files.append(path.relative_to(out).as_posix())
    refused = dict(sorted(refusals.counts.items()))
    if not written:
        (out / REFUSED).unlink(missing_ok=True)
        reasons = "; ".join(refused) or "the version has no example in these splits"
        raise InvalidInput(f"no example fits {name}: {reasons}", where=str(folder), hint="take another format")
    if container == "hf":
        write_hub_card(folder, out, name, written)
        files.append("README.md")
    if refused:
        files.append(REFUSED)
    return ExportReport(
        folder=str(out),
        format=name,
        container=container,
        files=tuple(files),
        examples=written,
        refused=refused,
    )


def guess_format(folder: Path) -> str:
    """The format that holds everything an example like the first one says. Raises NotFound, InvalidInput."""
    first = next(read_examples(folder), None)
    if first is None:
        raise InvalidInput("the dataset has no example", where=str(folder), hint="build it again")
    if first.chosen:
        return "preference"
    return "openai-chat" if first.messages else "text"


class Refusals:
    """Examples the format cannot hold: each a line in a file that is made with the first of them, and a count."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.counts: Counter[str] = Counter()
        self._path = path
        self._stack = stack
        self._stream: TextIO | None = None

    def note(self, example: Example, reason: str) -> None:
        """Say that an example is left out, and why."""
        if self._stream is None:
            descriptor = self._stack.enter_context(new_file(self._path))
            self._stream = self._stack.enter_context(os.fdopen(os.dup(descriptor), "w", encoding="utf-8"))
        self.counts[name_reason(reason)] += 1
        self._stream.write(json.dumps({"id": example.id, "reason": reason}, ensure_ascii=False) + "\n")


def _write_split(examples: Iterator[Example], name: str, container: Container, path: Path, refusals: Refusals) -> int:
    """How many examples were written; a file without any is taken away again."""
    count = 0
    with open_container(container, name, path) as write:
        for example in examples:
            try:
                write(encode_example(example, name))
                count += 1
            except InvalidInput as error:
                refusals.note(example, error.message)
    if not count:
        path.unlink()
    return count


def _file_name(split: str, container: Container) -> str:
    if container == "hf":
        return f"data/{split}-00000-of-00001.parquet"
    return f"{split}.{suffix_of_container(container)}"
