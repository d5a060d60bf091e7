"""Where personal data and secrets are in texts, without saying what they are: for checks before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from espalier.data.pii.detect import Detector, Recognizer
from espalier.data.pii.rules import DEFAULT_KINDS
from espalier.data.pii.surrogates import LOOK_ALIKES

FOUND = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("document", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
    ]
)


def find_personal(
    texts: Iterable[str] | pa.LargeStringArray,
    kinds: Sequence[str] = DEFAULT_KINDS,
    recognizers: Sequence[Recognizer] = (),
) -> pa.Table:
    """A row for each finding: its kind, the rule that found it, the text's number, and where in it. Never the value.

    `start` and `end` are characters. Rows are in order of document and start. Pseudonyms of ours are no findings.
    """
    column = texts if isinstance(texts, pa.LargeStringArray) else pa.array(list(texts), pa.large_string())
    rows = []
    for document, findings in Detector(kinds, recognizers, look_alikes=LOOK_ALIKES).find(column):
        text = column[document].as_buffer().to_pybytes()
        for found in findings:
            start = len(text[: found.start].decode())
            end = start + len(text[found.start : found.end].decode())
            rows.append((found.kind, found.rule, document, start, end))
    columns = list(zip(*rows, strict=True)) or [()] * len(FOUND)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, FOUND, strict=True)], FOUND)
