"""What a batch is, how it stands, and where that is kept.

    record `batch`         what was asked for: written once, when it is made
    job in the queue       who works on it now (a lease with a fencing token); `batches:<home>` is its operation
    record `batch-token`   that a client's own word for its request stands for a batch: once for each payer and word
    record `batch-cancel`  that its owner wants it no more
    record `batch-end`     how it ended and where its results are: written once, with the lease that proves the right to
    batches/<id>/          in the workspace's folder: the input, the journal, and the progress of whoever works on it

A batch is worked on by processes that share the folder with its journal, which is what `home` names. Knows no engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from espalier.core.errors import Conflict, InvalidInput, NotFound
from espalier.core.ids import make_id, now_ms
from espalier.core.types import Spec
from espalier.gateway.batch.shapes import ShapeName
from espalier.gateway.keys import ApiKey
from espalier.store.disk import write_file
from espalier.store.jobs import Lease
from espalier.store.store import Store

Body = TypeVar("Body", bound=Spec)
Ending = Literal["completed", "failed", "expired", "cancelled"]
Status = Literal["validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "expired", "cancelled"]
_MS_PER_HOUR = 3_600_000
_MOST_ATTEMPTS = 1000  # a server that dies again and again is not the batch's fault; a batch that kills it, is


class Batch(Spec):
    """What was asked for."""

    id: str
    shape: ShapeName
    name: str  # of the input, as people know it
    source: str  # sha256 of the input
    size_bytes: int
    model: str = ""  # what a line asks that names none
    input_file: str = ""
    key: ApiKey | None = None  # on whose account; None = the workspace's owner, who has no budget
    actor: str = "local"
    window: str = "24h"
    metadata: dict[str, str] = {}
    destination: str = ""  # a folder or s3:// prefix that results are copied to besides
    home: str = ""
    created_ms: int
    expires_ms: int

    @property
    def owner(self) -> str:
        return self.key.payer if self.key else ""

    def request_id(self, line: int) -> str:
        """The one id under which a line is ever asked, and charged."""
        return f"{self.id}-{line:07d}"


class Progress(Spec):
    """How far whoever works on a batch has come."""

    phase: Literal["validating", "in_progress", "finalizing"]
    total: int = 0
    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    started_ms: int = 0  # of this attempt
    done_before: int = 0  # lines that earlier attempts had done
    at_ms: int = 0
    finalizing_ms: int = 0

    @property
    def left_s(self) -> float | None:
        """Seconds until all is done at the rate of this attempt; None while nothing is known."""
        done = self.completed + self.failed
        fresh, elapsed_ms = done - self.done_before, self.at_ms - self.started_ms
        return (self.total - done) * elapsed_ms / fresh / 1000 if fresh > 0 and elapsed_ms > 0 else None


class BatchEnd(Spec):
    """How it ended. Digests are of blobs, ids of files; empty where there is nothing to tell."""

    id: str
    status: Ending
    output: str = ""
    output_file: str = ""
    errors: str = ""
    error_file: str = ""
    total: int = 0
    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    started_ms: int = 0
    finalizing_ms: int = 0
    ended_ms: int = 0
    fault_code: str = ""  # why it has failed as a whole
    fault: str = ""  # and in words; of one that completed without an answer too


@dataclass(frozen=True, slots=True)
class Standing:
    """A batch and how it stands."""

    batch: Batch
    end: BatchEnd | None
    progress: Progress | None
    cancelling_ms: int
    started_ms: int  # when work on it began first; 0 = not yet
    leased: bool  # somebody works on it now

    @property
    def status(self) -> Status:
        if self.end is not None:
            return self.end.status
        if self.cancelling_ms:
            return "cancelling"
        return self.progress.phase if self.progress else "validating"


@dataclass(frozen=True, slots=True)
class Token:
    """What a client calls its request, so that asking again makes no second batch; and what was asked with it."""

    word: str
    asked: str  # digest of every parameter


class _Taken(Spec):
    batch: str
    asked: str


class _Cancel(Spec):
    at_ms: int
    actor: str


class Batches:
    """All batches of one store, as one workspace folder sees them. Every method blocks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.folder = store.workspace.folder / "batches"

    @property
    def home(self) -> str:
        """The name of this folder, drawn once: jobs carry it, so that only who can read the journals takes them."""
        path = self.folder / "home"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            drawn = self.folder / f".{make_id('home')}"
            write_file(drawn, make_id("home").encode())
            with suppress(FileExistsError):  # another process was first, and its word holds
                path.hardlink_to(drawn)
            drawn.unlink()
        return path.read_text("ascii")

    @property
    def operation(self) -> str:
        """What jobs of batches at this home are called in the queue."""
        return f"batches:{self.home}"

    def folder_of(self, id: str) -> Path:
        """Where a batch's input, journal and progress are."""
        return self.folder / Path(id).name

    def create(
        self,
        shape: ShapeName,
        name: str,
        source: str,
        size_bytes: int,
        *,
        model: str = "",
        input_file: str = "",
        key: ApiKey | None = None,
        actor: str = "local",
        window: str = "24h",
        metadata: dict[str, str] | None = None,
        destination: str = "",
        token: Token | None = None,
    ) -> Batch:
        """Queue a batch over the blob `source`, or give the one that `token` stands for already.

        Raises InvalidInput for a window that is none, Conflict for a token that was given with other parameters.
        """
        now = now_ms()
        batch = Batch(
            id=make_id("batch"),
            shape=shape,
            name=Path(name).name[:255],
            source=source,
            size_bytes=size_bytes,
            model=model,
            input_file=input_file,
            key=key,
            actor=actor,
            window=window,
            metadata=metadata or {},
            destination=destination,
            home=self.home,
            created_ms=now,
            expires_ms=now + parse_window_ms(window),
        )
        with self._store.transaction():
            if token is not None:
                known = self._take_token(token, batch)
                if known is not None:
                    return known
            self._store.records.put("batch", batch.id, batch)
            self._store.jobs.enqueue(
                self.operation, {"batch": batch.id}, actor, max_attempts=_MOST_ATTEMPTS, job_id=job_id(batch.id)
            )
        return batch

    def find_made(self, token: Token, owner: str) -> Batch | None:
        """The batch that `token` of this owner's stands for. Raises Conflict where it came with other parameters."""
        taken = _maybe(self._store, "batch-token", _name(token, owner), _Taken)
        if taken is None:
            return None
        if taken.asked != token.asked:
            wrong = f"request token {token.word!r:.80} was given with other parameters"
            raise Conflict(wrong, hint="give each request its own, and the same again only to the same request")
        return self._store.records.get("batch", taken.batch, Batch)

    def _take_token(self, token: Token, batch: Batch) -> Batch | None:
        """Make `token` stand for `batch`, in the transaction that makes it; the other batch, if it stands for one.

        Kind and id of a record are unique in the database, so of two who ask at once, whatever processes answer them,
        the second waits for the first one's transaction and then finds its word taken.
        """
        try:
            self._store.records.put(
                "batch-token", _name(token, batch.owner), _Taken(batch=batch.id, asked=token.asked)
            )  # fmt: skip
        except Conflict:
            known = self.find_made(token, batch.owner)
            if known is None:
                raise
            return known
        return None

    def get(self, id: str, owner: str | None = None) -> Standing:
        """A batch of that owner's; None stands for who may see all. Raises NotFound."""
        missing = NotFound(f"no batch {id!r:.80}", hint="`espalier batch list` shows them", where="batch_id")
        if not self._store.records.has("batch", id):
            raise missing
        batch = self._store.records.get("batch", id, Batch)
        if owner is not None and batch.owner != owner:
            raise missing
        return self._look_at(batch)

    def list(
        self, owner: str | None = None, *, limit: int = 20, after: str = "", oldest_first: bool = False
    ) -> Sequence[Standing]:
        """The newest first, or the oldest; those that come `after` that batch.

        Raises InvalidInput for an `after` that is no batch of the owner's.
        """
        if after:
            known = self._store.records.has("batch", after) and self._store.records.get("batch", after, Batch)
            if not known or (owner is not None and known.owner != owner):
                wrong = f"after is {after!r:.80}, no batch"
                raise InvalidInput(wrong, where="after", hint="give the last page's last id")
        found = self._store.records.list(
            "batch", Batch, limit, after, after=after if oldest_first else None, where=_owned_by(owner)
        )
        return [self._look_at(batch) for batch in found]

    def cancel(self, id: str, owner: str | None = None, *, actor: str = "local") -> Standing:
        """Ask for its end; what is done is kept and published. Raises NotFound, and Conflict once it has ended."""
        standing = self.get(id, owner)
        if standing.end is not None:
            raise Conflict(f"batch {id} has ended: {standing.end.status}", hint="its results can be fetched")
        if not standing.cancelling_ms:
            self._store.records.put("batch-cancel", id, _Cancel(at_ms=now_ms(), actor=actor))
        return self.get(id, owner)

    def is_cancelled(self, id: str) -> bool:
        """Whether its end was asked for."""
        return self._store.records.has("batch-cancel", id)

    def note(self, id: str, progress: Progress) -> None:
        """Keep how far it has come, for whoever asks. Lost progress is no lost work: it is not fsynced."""
        path = self.folder_of(id) / "progress.json"
        arriving = path.with_suffix(".new")
        arriving.write_text(progress.model_dump_json(), "utf-8")
        arriving.replace(path)

    def finish(self, lease: Lease | None, end: BatchEnd) -> None:
        """Write down how it ended, with the lease that gives the right to. Raises LeaseLost, having written nothing."""
        with self._store.transaction():
            if lease is not None:
                self._store.jobs.complete(lease, {"status": end.status})
            self._store.records.put("batch-end", end.id, end)

    def _look_at(self, batch: Batch) -> Standing:
        end = _maybe(self._store, "batch-end", batch.id, BatchEnd)
        cancel = _maybe(self._store, "batch-cancel", batch.id, _Cancel)
        job = self._store.jobs.get(job_id(batch.id))
        leased = job.status == "running" and job.lease_until_ms > now_ms()
        progress = self._read_progress(batch.id) if end is None else None
        return Standing(batch, end, progress, cancel.at_ms if cancel else 0, job.started_ms, leased)

    def _read_progress(self, id: str) -> Progress | None:
        with suppress(OSError, ValueError):
            return Progress.model_validate(json.loads((self.folder_of(id) / "progress.json").read_bytes()))
        return None


def _name(token: Token, owner: str) -> str:
    return f"{owner}:{token.word}"


def _owned_by(owner: str | None) -> Sequence[Mapping[str, str | None]]:
    """`Batch.owner` as the store's query says it."""
    if owner is None:
        return ()
    if not owner:
        return ({"key.id": None},)
    return ({"key.lent_by": owner}, {"key.lent_by": "", "key.id": owner})


def job_id(batch: str) -> str:
    """The job that works on a batch."""
    return "job_" + batch.removeprefix("batch_")


def parse_window_ms(window: str) -> int:
    """`24h`, `30m` or `7d` as milliseconds. Raises InvalidInput."""
    number, unit = window[:-1], window[-1:]
    units = {"m": _MS_PER_HOUR // 60, "h": _MS_PER_HOUR, "d": 24 * _MS_PER_HOUR}
    known = number.isascii() and number.isdigit() and len(number) < 6 and unit in units
    if not known or not 0 < int(number) * units[unit] <= 30 * units["d"]:
        wrong = f"{window!r:.40} is no time from 1m to 30d"
        raise InvalidInput(wrong, where="completion_window", hint="24h, 30m, 7d: at most 30d")
    return int(number) * units[unit]


def _maybe(store: Store, kind: str, id: str, type: type[Body]) -> Body | None:
    return store.records.get(kind, id, type) if store.records.has(kind, id) else None
