"""The step that takes personal data out: every finding replaced, or its document dropped or marked, as the kind says.

Redacting twice changes nothing more. The originals are kept nowhere; only counts per kind are reported.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.data.flow.batch import CONVERSATIONS
from espalier.data.flow.outcome import Outcome, rewrite_messages
from espalier.data.flow.step import CleanStep
from espalier.data.pii.detect import Detector, Recognizer
from espalier.data.pii.finding import Finding
from espalier.data.pii.names import Names, read_names
from espalier.data.pii.rows import gather_strings, rewrite_row, rewrite_tags
from espalier.data.pii.rules import DEFAULT_KINDS
from espalier.data.pii.spec import RedactSpec
from espalier.data.pii.splice import Edited, splice, to_column
from espalier.data.pii.surrogates import Surrogates, read_salt

FLAG_TAG = "personal_data"
_ROUNDS = 20  # what was taken out may have hidden its neighbour; two rounds nearly always do


@dataclass(slots=True)
class Examined:
    """A column after redaction, and what was found in it, by row and kind."""

    texts: pa.LargeStringArray  # (n,), the column itself when nothing changed
    found: dict[int, Counter[str]] = field(default_factory=dict)
    changed: bool = False


class Redactor:
    """A prepared redaction: pure, so batches may come in any order and any process."""

    def __init__(
        self, spec: RedactSpec, names: Names | None = None, *, salt: bytes = b"", recognizers: Sequence[Recognizer] = ()
    ) -> None:
        self._spec = spec
        self._surrogates = Surrogates(salt)
        modes = {kind: spec.mode_of(kind) for kind in spec.kinds}
        self._detector = Detector(
            spec.kinds,
            (*([names] if names else []), *recognizers),
            look_alikes=[kind for kind, mode in modes.items() if mode == "pseudonymise"],
        )

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Text, table row, messages and source tags of every document; counts and drops by kind."""
        text = self.examine(batch.column("text"))
        rows = self._examine_rows(batch.column("row"))
        found = [text.found, rows.found]
        outcome = Outcome(texts=text.texts if text.changed else None, rows=rows.texts if rows.changed else None)
        for name in CONVERSATIONS:
            column = batch.column(name)
            examine = functools.partial(self._examine_each, column=column, found=found)
            changed = rewrite_messages(column, examine)
            if changed is not None:
                outcome.conversations[name] = changed
        outcome.tags = rewrite_tags(batch.column("tags"), self.rewrite)
        self._conclude(outcome, found, len(batch))
        return outcome

    def rewrite(self, texts: pa.LargeStringArray) -> pa.LargeStringArray:
        """Texts (n,) with every finding replaced; what would drop a document is masked."""
        return self.examine(texts).texts

    def redact(self, text: str) -> str:
        """One text with every finding replaced."""
        redacted: str = self.rewrite(pa.array([text], pa.large_string()))[0].as_py()
        return redacted

    def examine(self, texts: pa.LargeStringArray) -> Examined:
        """A column (n,) redacted until nothing more is found in it, with what was found."""
        examined = Examined(texts)
        changed: dict[int, bytes] = {}
        rows: Sequence[int] = range(len(texts))
        column = texts
        for round_number in range(_ROUNDS):
            edited: dict[int, Edited] = {}
            for at, findings in self._detector.find(column):
                taken = [each for each in findings if self._is_taken(each)]
                told = taken if round_number else findings
                if told:
                    examined.found.setdefault(rows[at], Counter()).update(each.kind for each in told)
                if taken:
                    edited[rows[at]] = self._replace(column[at].as_buffer().to_pybytes(), taken)
            changed |= {row: each.text for row, each in edited.items()}
            again = self._look_around(edited)
            if not again:
                break
            rows, column = again, to_column([edited[row].text for row in again])
        examined.texts, examined.changed = splice(texts, changed), bool(changed)
        return examined

    def _look_around(self, edited: Mapping[int, Edited]) -> list[int]:
        """The rows where something stands beside what was replaced: it may have been hidden by it."""
        if not self._detector.is_local:
            return list(edited)
        owners, around = list[int](), list[bytes]()
        for row, each in edited.items():
            for piece in each.surroundings():
                owners.append(row)
                around.append(piece)
        found = self._detector.find(to_column(around))
        return sorted({owners[at] for at, findings in found if any(map(self._is_taken, findings))})

    def _is_taken(self, found: Finding) -> bool:
        return self._spec.mode_of(found.kind) not in ("flag", "keep")

    def _replace(self, text: bytes, findings: Sequence[Finding]) -> Edited:
        parts, spans, last, size = list[bytes](), list[tuple[int, int]](), 0, 0
        for found in findings:
            substitute = self._substitute(found.kind, text[found.start : found.end])
            size += found.start - last
            spans.append((size, size + len(substitute)))
            size += len(substitute)
            parts += [text[last : found.start], substitute]
            last = found.end
        return Edited(b"".join((*parts, text[last:])), spans)

    def _substitute(self, kind: str, value: bytes) -> bytes:
        mode = self._spec.mode_of(kind)
        if mode in ("hash", "pseudonymise"):
            return self._surrogates.make(mode, kind, value.decode()).encode()
        return f"[{kind}]".encode()

    def _examine_each(
        self, contents: pa.LargeStringArray, column: pa.ListArray, found: list[dict[int, Counter[str]]]
    ) -> pa.LargeStringArray:
        """Messages redacted; what was found in them is noted by the row they belong to."""
        examined = self.examine(contents)
        owners = np.repeat(np.arange(len(column)), np.diff(np.asarray(column.offsets)))
        by_row: dict[int, Counter[str]] = {}
        for message, counts in examined.found.items():
            by_row.setdefault(int(owners[message]), Counter()).update(counts)
        found.append(by_row)
        return examined.texts

    def _examine_rows(self, column: pa.LargeStringArray) -> Examined:
        """Table rows as JSON objects: every string in them, at any depth, but not their keys."""
        held, owners, values = gather_strings(column)
        examined = self.examine(pa.array(values, pa.large_string()))
        by_row: dict[int, Counter[str]] = {}
        for place, counts in examined.found.items():
            by_row.setdefault(owners[place], Counter()).update(counts)
        if not examined.changed:
            return Examined(column, by_row)
        renamed = dict(zip(values, examined.texts.to_pylist(), strict=True))
        touched = {owners[at] for at, value in enumerate(values) if renamed[value] != value}
        return Examined(splice(column, {at: rewrite_row(held[at], renamed) for at in touched}), by_row, True)

    def _conclude(self, outcome: Outcome, found: Sequence[Mapping[int, Counter[str]]], size: int) -> None:
        """Counts, drops and flags, from what was found in each column. A text that repeats its row counts once."""
        by_row: dict[int, Counter[str]] = {}
        for each in found:
            for row, counts in each.items():
                by_row[row] = by_row.get(row, Counter()) | counts
        totals, reasons, flags = Counter[str](), list[str | None]([None] * size), list[str | None]([None] * size)
        for row, counts in by_row.items():
            dropping = sorted(kind for kind in counts if self._spec.mode_of(kind) == "drop")
            flagged = sorted(kind for kind in counts if self._spec.mode_of(kind) == "flag")
            if dropping:
                reasons[row] = f"personal data: {', '.join(dropping)}"
            if flagged:
                flags[row] = ",".join(flagged)
            for kind, count in counts.items():
                done = {"drop": " dropped", "flag": " flagged", "keep": " kept"}.get(self._spec.mode_of(kind), "")
                totals[f"{kind}{done}"] += count
                totals[f"{kind} documents"] += 1
        outcome.counts = dict(sorted(totals.items()))
        if any(reasons):
            outcome.reasons = pa.array(reasons, pa.string())
        if any(flags):
            outcome.tags[FLAG_TAG] = pa.array(flags, pa.string())


def load_redactor(spec: RedactSpec, root: Path) -> Redactor:
    """A redactor with the names, salt and recognisers that the spec names; paths are relative to `root`.

    Raises NotFound, InvalidInput (a mode that needs a salt and has none ...) or MissingExtra.
    """
    from espalier.data.pii.recognizers import load_recognizers

    unknown = [kind for kind in spec.modes if not kind.isupper()]
    if unknown:
        hint = did_you_mean(unknown[0].upper(), (*DEFAULT_KINDS, "URL", "COORDINATES", "NAME"))
        raise InvalidInput(f"`{unknown[0]}` is no kind", where="redact.modes", hint=hint)
    keyed = sorted({mode for mode in (spec.mode, *spec.modes.values()) if mode in ("hash", "pseudonymise")})
    if keyed and not spec.salt:
        hint = "openssl rand -hex 32 > salt.key; then `salt: salt.key`, or `salt: env:NAME`"
        raise InvalidInput(f"mode {keyed[0]} needs a salt", where="redact.salt", hint=hint)
    names = Names(read_names(root / spec.names, spec.name_columns), parts=spec.name_parts) if spec.names else None
    salt = read_salt(spec.salt, root) if spec.salt else b""
    return Redactor(spec, names, salt=salt, recognizers=load_recognizers(spec.recognizers))


def fingerprint(spec: RedactSpec, root: Path) -> str:
    """Which salt it is, without saying it."""
    return hashlib.sha256(b"fingerprint\0" + read_salt(spec.salt, root)).hexdigest()[:16] if spec.salt else ""


STEP = CleanStep("redact", 2, RedactSpec, load_redactor, files=("names", "salt"), fingerprint=fingerprint)
