"""A JSON lines file with every kind of trouble planted in it, and a record of where: the truth to judge a reader by.

Knows how files go wrong in practice. Does not know readers.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

BOM = b"\xef\xbb\xbf"
# How many of each a million rows hold.
PER_MILLION = {
    "broken_line": 3_000,
    "not_object": 500,
    "missing_text": 1_000,
    "mixed_schema": 2_000,
    "duplicate_id": 4_000,
    "bom": 200,
    "invalid_utf8": 1_000,
    "null_bytes": 500,
}
CRLF_SHARE = 0.02  # of the rows, in one stretch: a part that came from another machine
_WORDS = (
    *("the", "pump", "in", "hall", "two", "stands", "still", "since", "monday", "and", "nobody", "knows", "why"),
    *("its", "motor", "hums", "größe", "müller", "温度", "насос"),
)
_BROKEN = (b'{"id": "x", "text": "cut off', b"nonsense", b'{"text": "a",}', b"{'text': 'single'}")
_OTHERS = (b"[1, 2, 3]", b'"a string"', b"42", b"null")


@dataclass(slots=True)
class Planted:
    """Physical lines of each kind of trouble; `crlf` counts its lines."""

    rows: int = 0  # good rows, repaired ones among them
    size_bytes: int = 0
    lines: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    crlf_first: int = 0
    crlf_lines: int = 0


def write_messy(path: Path, rows: int, *, seed: int = 0, long_line_bytes: int = 50_000_000) -> Planted:
    """Write `rows` lines and return what was planted. The same arguments give the same bytes."""
    draw = random.Random(seed)
    planted = Planted()
    plan = _plan(rows, draw, planted)
    crlf = range(rows // 2, rows // 2 + int(rows * CRLF_SHARE))
    with path.open("wb") as stream:
        stream.write(BOM)
        planted.lines["bom"].add(1)
        for line in range(1, rows + 1):
            kind = plan.get(line, "")
            data = _long_line(line, long_line_bytes) if kind == "long_line" else _make(kind, line, draw, planted)
            if line in crlf and kind != "long_line":
                planted.crlf_first = planted.crlf_first or line
                planted.crlf_lines += 1
                data += b"\r"
            stream.write(data + b"\n")
            planted.rows += kind not in ("broken_line", "not_object", "missing_text", "long_line")
        planted.size_bytes = stream.tell()
    return planted


def _plan(rows: int, draw: random.Random, planted: Planted) -> dict[int, str]:
    """Which line gets which trouble; none of the first ten, which set what is usual."""
    counts = {kind: max(2, count * rows // 1_000_000) for kind, count in PER_MILLION.items()}
    kinds = [kind for kind, count in counts.items() for _ in range(count)] + ["long_line"]
    plan = dict(zip(draw.sample(range(11, rows + 1), len(kinds)), kinds, strict=True))
    for line, kind in plan.items():
        planted.lines[kind].add(line)
    late = next(line for line in range(rows * 3 // 4, rows) if line not in plan)
    plan[late] = "late_column"
    planted.lines["late_column"].add(late)
    return plan


def _make(kind: str, line: int, draw: random.Random, planted: Planted) -> bytes:
    if kind == "broken_line":
        return draw.choice(_BROKEN)
    if kind == "not_object":
        return draw.choice(_OTHERS)
    text = " ".join(draw.choices(_WORDS, k=draw.randint(20, 60)))
    row: dict[str, object] = {"id": f"row-{line}", "body": text, "score": draw.randint(0, 99), "lang": "de"}
    if kind == "missing_text":
        del row["body"]
    elif kind == "mixed_schema":
        row["score"] = draw.choice(["high", "low"])
    elif kind == "duplicate_id":
        row["id"] = f"row-{draw.randint(1, 10)}"
    elif kind == "late_column":
        row["added"] = True
    elif kind == "null_bytes":
        row["body"] = f"{text}\x00{text}"
    data = json.dumps(row, ensure_ascii=False).encode()
    if kind == "bom":
        return BOM + data
    if kind == "invalid_utf8":
        return data.replace(b'"lang": "de"', b'"lang": "d\xe9"')
    return data


def _long_line(line: int, size_bytes: int) -> bytes:
    head, tail = f'{{"id": "row-{line}", "body": "'.encode(), b'", "score": 1, "lang": "de"}'
    return head + b"x" * (size_bytes - len(head) - len(tail)) + tail
