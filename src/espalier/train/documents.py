"""Examples of one or several dataset versions -> `MixedDocuments`: laid out once, kept in a file, read when needed.

The file lies in the cache under a key over everything that decides its content: the dataset's bytes, the tokenizer, the
template, the context, the policies and the layout. The next run of the same key tokenizes nothing; a corpus larger than
memory trains, since the file is mapped. Two processes that want the same file wait for each other. Knows no model.
"""

from __future__ import annotations

import bisect
import fcntl
import hashlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from espalier.core.errors import DigestMismatch, InvalidInput
from espalier.core.events import Emit, Event
from espalier.core.ids import digest_of
from espalier.core.types import Example
from espalier.store.disk import new_file, storage_errors
from espalier.store.examples import SPLITS, count_examples, example_files, read_examples
from espalier.tokens.pack import Int64, Strip
from espalier.tokens.tokenizer import ChatTokenizer
from espalier.train.audit import Auditor, MaskAudit, join_audits, refuse_poor, tell_drops
from espalier.train.laying import Laying
from espalier.train.stripfile import StripFile, StripWriter

if TYPE_CHECKING:
    from espalier.train.corpus import Documents, Source
    from espalier.train.method import Setting
    from espalier.train.recipe import TrainSpec

LAYOUT = 1  # raised when the same examples would give other strips
BATCH_EXAMPLES = 512  # tokenized together
_TELL_EVERY_S = 0.5
_READ_BYTES = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """The documents of one dataset of a mix: numbers `start` to `stop`, exclusive."""

    name: str  # empty = the main dataset
    start: int
    stop: int
    share: float  # of the main dataset's tokens, each epoch


class MixedDocuments:
    """The documents of every dataset of a mix, numbered through, the main dataset's first."""

    def __init__(self, files: Sequence[StripFile], names: Sequence[str], shares: Sequence[float]) -> None:
        self._files = files
        self._starts = [0, *itertools.accumulate(map(len, files))]
        stretches = itertools.pairwise(self._starts)
        self.parts = tuple(
            Part(name, start, stop, share) for name, share, (start, stop) in zip(names, shares, stretches, strict=True)
        )
        audits = [
            replace(MaskAudit.from_json(file.note["audit"]), name=name, share=share)
            for file, name, share in zip(files, names, shares, strict=True)
        ]
        self.audit = join_audits(audits)
        self.digest = digest_of([file.digest for file in files])

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def lengths(self) -> Int64:
        """Tokens computed for each. (n,)"""
        return np.concatenate([file.lengths for file in self._files])

    def strip(self, index: int) -> Strip:
        """Document `index`; raises IndexError."""
        number = bisect.bisect_right(self._starts, index) - 1
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        strip: Strip = self._files[number][index - self._starts[number]]
        return strip


class ExtendedDocuments:
    """Documents with more numbers to each strip: reference log-probabilities, a teacher's choices ...

    extras: name -> (values of all documents end to end, where each document's end (n,)).
    """

    def __init__(self, documents: Documents, extras: Mapping[str, tuple[Any, Int64]], tag: str = "") -> None:
        self._documents, self._extras = documents, extras
        self.parts = parts_of(documents)
        self.digest = digest_of([documents.digest, tag]) if tag else documents.digest

    def __len__(self) -> int:
        return len(self._documents)

    @property
    def lengths(self) -> Sequence[int] | Int64:
        return self._documents.lengths

    def strip(self, index: int) -> Strip:
        more = {
            name: values[int(ends[index - 1]) if index else 0 : int(ends[index])]
            for name, (values, ends) in self._extras.items()
        }
        strip = self._documents.strip(index)
        return replace(strip, extras={**strip.extras, **more})


def parts_of(documents: Documents) -> tuple[Part, ...]:
    """The parts of a mix; documents that have none are one."""
    parts: tuple[Part, ...] | None = getattr(documents, "parts", None)
    return parts if parts is not None else (Part("", 0, len(documents), 1.0),)


def lay_sources(setting: Setting, laying: Laying) -> MixedDocuments:
    """Every training example of the setting's datasets, laid out by `laying`; from the cache where that is possible.

    Raises InvalidInput for a dataset that has no train split, teaches nothing, or (by policy) has long or bad examples;
    NotFound for no dataset, StorageFull.
    """
    check_shares([(source.name, source.share) for source in setting.sources])
    files = [_lay_source(setting, laying, source, "train") for source in setting.sources]
    sources = setting.sources
    return MixedDocuments(files, [source.name for source in sources], [source.share for source in sources])


def lay_validation(setting: Setting, laying: Laying) -> list[Strip]:
    """The first examples of the main dataset's validation split, laid out; none when there is no such split."""
    source, wanted = setting.sources[0], setting.spec.validation_examples
    if not wanted or not example_files(source.folder, "validation"):
        return []
    strips: list[Strip] = []
    for batch in _batched(itertools.islice(read_examples(source.folder, "validation"), wanted), BATCH_EXAMPLES):
        strips += [strip for laid in laying.lay(batch) for strip in laid.strips]
    return strips


def check_shares(shares: Sequence[tuple[str, float]]) -> None:
    """Raise InvalidInput for shares of a mix that are negative or not finite, or that are all zero."""
    for name, share in shares:
        if not 0 <= share < float("inf"):
            raise InvalidInput(
                f"mix: the share of {name or 'the main dataset'} is {share}",
                hint="a share is a number from 0 up: 0.25 = one token of it for four of the main dataset's",
            )
    if not any(share for _, share in shares):
        raise InvalidInput("mix: every share is 0, so there is nothing to train on", hint="give one a share above 0")


def cache_key(tokenizer: ChatTokenizer, spec: TrainSpec, laying: Laying, dataset: str, split: str) -> str:
    """Of all that decides how a split's examples are laid out. dataset: digest of its bytes."""
    return digest_of(
        {
            "layout": LAYOUT,
            "dataset": dataset,
            "split": split,
            "tokenizer": tokenizer.digest,
            "template": tokenizer.template_digest,
            "special_tokens": tokenizer.special_tokens,
            "laying": laying.tag,
            "overlong": spec.overlong,
            "bad_examples": spec.bad_examples,
        }
    )


def _lay_source(setting: Setting, laying: Laying, source: Source, split: str) -> StripFile:
    files = example_files(source.folder, split)
    if not files:
        there = [name for name in SPLITS if example_files(source.folder, name)]
        raise InvalidInput(
            f"{_call(source)} has no {split} split; it has {', '.join(there) or 'none'}",
            hint="give the recipe that builds it a `split:` with a share for train",
        )
    tokenizer = setting.base.tokenizer
    key = cache_key(tokenizer, setting.spec, laying, source.digest or _digest_files(files), split)
    path = setting.cache_dir / "tokens" / f"{key}.strips"
    found = _open(path, setting.emit)
    if found is None:
        with _alone(path):
            found = _open(path, setting.emit)  # made by another while we waited
            if found is None:
                _make(path, setting, laying, source, split)
                found = StripFile(path)
    setting.emit(Event("train.tokens", {"dataset": source.name, "documents": len(found), "key": key}))
    return found


def _make(path: Path, setting: Setting, laying: Laying, source: Source, split: str) -> None:
    """Lay every example out and write the file, whole or not at all."""

    def decode(ids: Sequence[int]) -> str:
        return setting.base.tokenizer.decode(ids, skip_special=False)

    auditor, count = Auditor(laying, decode), count_examples(source.folder, split)
    told_s = time.monotonic()
    with new_file(path) as descriptor:
        writer = StripWriter(descriptor)
        for batch in _batched(read_examples(source.folder, split), BATCH_EXAMPLES):
            for example, laid in zip(batch, laying.lay(batch), strict=True):
                auditor.add(example, laid)
                writer.add(laid.strips)
            if time.monotonic() - told_s > _TELL_EVERY_S:
                told_s = time.monotonic()
                done = {"dataset": source.name, "examples": auditor.seen, "of": count, "tokens": auditor.tokens}
                setting.emit(Event("train.tokenize", done))
        _refuse(auditor, setting, source)
        writer.finish({"audit": auditor.finish().to_json()})


def _refuse(auditor: Auditor, setting: Setting, source: Source) -> None:
    if setting.spec.overlong == "refuse" and auditor.truncated:
        raise InvalidInput(
            f"{auditor.truncated} of {auditor.seen} examples of {_call(source)} are longer than the context of "
            f"{setting.context_tokens} tokens: {', '.join(auditor.first_truncated)}"
            f"{' ...' if auditor.truncated > len(auditor.first_truncated) else ''}",
            hint="raise `context_tokens`, or let `overlong` be `truncate` or `split`",
        )
    if setting.spec.bad_examples == "refuse" and auditor.dropped:
        raise InvalidInput(
            f"{auditor.dropped} of {auditor.seen} examples of {_call(source)} teach nothing: "
            f"{tell_drops(auditor.drops)}",
            hint="mend them, or let `bad_examples` be `drop`",
        )
    refuse_poor(auditor, _call(source), context_tokens=setting.context_tokens)


def _open(path: Path, emit: Emit) -> StripFile | None:
    """The file, when it is there and whole."""
    try:
        return StripFile(path) if path.is_file() else None
    except FileNotFoundError:  # a cache may be emptied at any time
        return None
    except DigestMismatch as error:
        emit(Event("log", {"level": "warning", "message": f"the token cache is made again: {error.message}"}))
        return None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one process at a time makes a file; the lock's own file stays, empty."""
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _digest_files(files: Sequence[Path]) -> str:
    """sha256 over the files' bytes: the same examples are written as the same bytes."""
    told = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while data := stream.read(_READ_BYTES):
                told.update(data)
    return told.hexdigest()


def _call(source: Source) -> str:
    return f"dataset {source.name!r} of the mix" if source.name else "the dataset"


def _batched(items: Iterable[Example], size: int) -> Iterator[list[Example]]:
    waiting = iter(items)
    while batch := list(itertools.islice(waiting, size)):
        yield batch
