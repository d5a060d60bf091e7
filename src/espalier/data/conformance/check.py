"""`check_dataset`: would a service take this dataset for fine-tuning? By what it publishes, before any upload.

Knows limits and rows. Asks nobody: a service may refuse for reasons it does not publish.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from espalier.core.errors import InvalidInput
from espalier.core.types import Message
from espalier.data.conformance.limits import READ_ON, Limits, find_limits
from espalier.data.conformance.personal import PersonalData
from espalier.data.conformance.report import CheckReport, Findings
from espalier.data.conformance.rows import CheckedRow, encode_part, find_parts, read_lines
from espalier.data.formats.decoded import Decoded
from espalier.data.formats.format import decode_row, find_format

CountTokens = Callable[[str], int]


def check_dataset(
    path: Path, target: str, *, count_tokens: CountTokens | None = None, personal: bool = False
) -> CheckReport:
    """Check a .jsonl file, a folder of them, or a dataset version against the limits of `target` ("bedrock:nova").

    count_tokens: how the target's model counts. Without it the count is guessed from the characters, and a record that
    may be too long is a warning, not an error.
    personal: also look for personal data and secrets, which an upload would hand over; each row with some is a warning.

    Raises NotFound when there is nothing to check, InvalidInput for an unknown target.
    """
    limits = find_limits(target)
    parts, versioned = find_parts(path)
    findings, records, sizes = Findings(), Counter[str](), Counter[str]()
    watch = PersonalData(findings) if personal else None
    for part in parts:
        if not versioned and limits.file_name and not re.fullmatch(limits.file_name, part.name):
            hint = "letters, digits, _ - . and / only, and .jsonl at the end"
            findings.add("error", "file name", part.name, f"{part.name!r} is not taken as a name", hint)
        for checked in encode_part(part, limits.formats[0]) if versioned else read_lines(part):
            records[part.role] += 1
            sizes[part.role] += checked.bytes
            decoded = _check_row(checked, limits, count_tokens, findings)
            if watch and decoded:
                watch.add(checked.where, decoded.whole_text())
    if watch:
        watch.look()
    _check_sizes(records, sizes, limits, findings)
    return CheckReport(
        target=limits.target,
        title=limits.title,
        formats=limits.formats,
        sources=limits.sources,
        read_on=READ_ON,
        unverified=limits.unverified,
        records=dict(records),
        counts=findings.totals(),
        accepted=not any(finding.level == "error" for finding in findings.kept),
        findings=findings.ordered(),
    )


def _check_row(
    checked: CheckedRow, limits: Limits, count_tokens: CountTokens | None, findings: Findings
) -> Decoded | None:
    if checked.row is None:
        findings.add("error", "unreadable", checked.where, checked.problem, checked.hint)
        return None
    decoded = _decode(checked, limits, findings)
    if decoded is None:
        return None
    turns = [*decoded.messages, *decoded.chosen, *decoded.rejected]
    for rule, message, hint in _faults(decoded, turns, limits):
        findings.add("error", rule, checked.where, message, hint)
    _check_length(checked.where, turns, limits, count_tokens, findings)
    return decoded


def _decode(checked: CheckedRow, limits: Limits, findings: Findings) -> Decoded | None:
    """The row by the first of the target's formats that it looks like; a finding when it cannot be read."""
    row = checked.row or {}
    name = next((name for name in limits.formats if find_format(name).matches(row)), limits.formats[0])
    try:
        return decode_row(row, name)
    except InvalidInput as error:
        findings.add("error", "format", checked.where, f"no row of {name}: {error.message}", error.hint)
        return None


def _faults(decoded: Decoded, turns: list[Message], limits: Limits) -> Iterator[tuple[str, str, str]]:
    """(rule, message, hint) of everything in a row that the service does not take, but for its length."""
    spoken = [turn.role for turn in decoded.messages if turn.role != "system"]
    if limits.alternating and spoken != ["user", "assistant"] * (len(spoken) // 2):
        yield "roles", f"the turns are {', '.join(spoken)}", "user and assistant must take turns, the user first"
    for index, turn in enumerate(turns):
        words = [word for word in limits.reserved if word in turn.content]
        if words:
            named = ", ".join(words)
            yield "reserved word", f"turn {index + 1} holds {named}, which is reserved", "put it in other words"
        if limits.weights is not None and turn.weight is not None and turn.weight not in limits.weights:
            yield "weight", f"turn {index + 1} has the weight {turn.weight:g}", "only 0 and 1 are taken"


def _check_length(
    where: str, turns: list[Message], limits: Limits, count_tokens: CountTokens | None, findings: Findings
) -> None:
    chars = sum(len(turn.content) for turn in turns)
    hint = "shorten it, or cut it in pieces (step chunk)"
    if limits.record_chars is not None and chars > limits.record_chars:
        message = f"{chars} characters, at most {limits.record_chars} are taken"
        findings.add("error", "characters in a record", where, message, hint)
    if limits.record_tokens is None:
        return
    if count_tokens:
        tokens = sum(count_tokens(turn.content) for turn in turns)
        if tokens > limits.record_tokens:
            message = f"{tokens} tokens, at most {limits.record_tokens} are taken"
            findings.add("error", "tokens in a record", where, message, hint)
    elif chars / limits.chars_per_token > limits.record_tokens:
        guess = round(chars / limits.chars_per_token)
        message = f"about {guess} tokens by its {chars} characters, at most {limits.record_tokens} are taken"
        findings.add("warning", "tokens in a record", where, message, hint)


def _check_sizes(records: Counter[str], sizes: Counter[str], limits: Limits, findings: Findings) -> None:
    """The numbers of records and bytes, by role and together."""
    bounds = {
        "train": (limits.train_records, limits.train_bytes),
        "validation": (limits.validation_records, limits.validation_bytes),
    }
    for role, ((least, most), most_bytes) in bounds.items():
        count = records[role]
        if role == "validation" and not count:
            continue
        if count < least:
            message = f"{count} records, at least {least} are needed"
            findings.add("error", "records", role, message, "add examples, or move some here from another split")
        if most is not None and count > most:
            message = f"{count} records, at most {most} are taken"
            findings.add("error", "records", role, message, "drop the least useful ones")
        if most_bytes is not None and sizes[role] > most_bytes:
            message = f"{sizes[role]} bytes, at most {most_bytes} are taken"
            findings.add("error", "file size", role, message, "drop or shorten records")
    if limits.total_records is not None and records.total() > limits.total_records:
        message = f"{records.total()} records in all, at most {limits.total_records} are taken"
        findings.add("error", "records", "train and validation", message, "drop the least useful ones")
    if records["train"] < limits.advised_records and records["train"] >= limits.train_records[0]:
        message = f"{records['train']} records; {limits.advised_records} or more are advised"
        findings.add("warning", "few records", "train", message, "add examples if the result disappoints")
