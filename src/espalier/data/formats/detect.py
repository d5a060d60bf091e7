"""Which format rows are of: found by looking at the first of them, told with what was seen and how sure it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice

from espalier.core.errors import InvalidInput
from espalier.core.types import Spec
from espalier.data.formats.decoded import Row
from espalier.data.formats.format import decode_row, find_format, fitting_formats
from espalier.data.formats.shape import Format

ROWS = 100  # so many are looked at
SURE = 0.9  # a format that fewer of the rows fit is not taken
_SHOWN = 3
_LABEL_CHARS = 60  # longer ones are no labels
_MIN_ROWS = 10  # of which a column's values say something


class Candidate(Spec):
    """A format some of the rows may be of."""

    format: str
    fits: int  # rows that look like it
    reads: int  # rows of those that can be read by it
    problems: tuple[str, ...] = ()  # the first reasons why others cannot


class Detection(Spec):
    """What rows are. `confidence` is the share of the rows that can be read by `format` and by no other."""

    format: str
    title: str
    confidence: float
    because: str
    rows: int
    candidates: tuple[Candidate, ...]
    labels: tuple[str, ...] = ()  # columns that are not read and take few short values


def detect_format(rows: Iterable[Row]) -> Detection:
    """The format of the first `ROWS` rows.

    Raises InvalidInput when there is no row, when no format or more than one fits, or when fewer than nine in ten rows
    agree; the message lists the candidates with what speaks for each.
    """
    seen = list(islice(rows, ROWS))
    if not seen:
        raise InvalidInput("no row to look at", hint="the file is empty")
    fitting = [fitting_formats(row) for row in seen]
    candidates = tuple(_judge(shape, seen, fitting) for shape in _found(fitting))
    if not candidates:
        raise InvalidInput(f"of no known format: {_describe_columns(seen)}", hint=_suggest_columns(seen))
    best = max(candidates, key=lambda candidate: candidate.fits)
    alone = [row for row, shapes in zip(seen, fitting, strict=True) if [s.name for s in shapes] == [best.format]]
    readable = sum(_try(row, best.format) is None for row in alone)
    if len(alone) < SURE * len(seen):
        raise InvalidInput(_ambiguous(candidates, len(seen)), hint="say which: format")
    shape = find_format(best.format)
    return Detection(
        format=shape.name,
        title=shape.title,
        confidence=round(readable / len(seen), 3),
        because=_explain(shape, seen, best),
        rows=len(seen),
        candidates=candidates,
        labels=_find_labels(shape, seen),
    )


def _found(fitting: list[list[Format]]) -> list[Format]:
    unique = {shape.name: shape for shapes in fitting for shape in shapes}
    return [unique[name] for name in sorted(unique)]


def _judge(shape: Format, rows: list[Row], fitting: list[list[Format]]) -> Candidate:
    own = [row for row, shapes in zip(rows, fitting, strict=True) if shape in shapes]
    problems = Counter(reason for row in own if (reason := _try(row, shape.name)) is not None)
    shown = tuple(reason for reason, _ in problems.most_common(_SHOWN))
    return Candidate(format=shape.name, fits=len(own), reads=len(own) - problems.total(), problems=shown)


def _try(row: Row, name: str) -> str | None:
    try:
        decode_row(row, name)
    except InvalidInput as error:
        return error.message
    return None


def _explain(shape: Format, rows: list[Row], candidate: Candidate) -> str:
    """ "97 of 100 rows have `instruction` and `output`: Alpaca; `input` is empty in 40"."""
    needed = [shape.columns[name] for name in shape.needed]
    said = [f"{candidate.fits} of {len(rows)} rows have {_list(needed)}: {shape.title}"]
    for name in (column for key, column in shape.columns.items() if key not in shape.needed):
        have = sum(name in row for row in rows)
        filled = sum(bool(row.get(name)) for row in rows)
        if have and filled < have:
            said.append(f"`{name}` is empty in {have - filled}")
        elif have:
            said.append(f"`{name}` stands in {have}")
    ignored = sorted({name for row in rows for name in row} - set(shape.columns.values()))
    said += [f"`{name}` takes {_count_values(rows, name)} values: a label?" for name in _find_labels(shape, rows)]
    if ignored:
        more = f" and {len(ignored) - 8} more" if len(ignored) > 8 else ""
        said.append(f"not read: {_list(ignored[:8])}{more}")
    if candidate.problems:
        said.append(f"{candidate.fits - candidate.reads} cannot be read, such as: {candidate.problems[0]}")
    return "; ".join(said)


def _find_labels(shape: Format, rows: list[Row]) -> tuple[str, ...]:
    """Columns beside a text that could be its label: in every row, short, and of few values."""
    if shape.name != "text" or len(rows) < _MIN_ROWS:
        return ()
    names = sorted({name for row in rows for name in row} - set(shape.columns.values()))
    return tuple(name for name in names if 0 < _count_values(rows, name) <= len(rows) // 5)


def _count_values(rows: list[Row], name: str) -> int:
    """How many values a column takes; 0 when some row has none, or one that is no short word or number."""
    values = [row.get(name) for row in rows]
    if not all(isinstance(value, str | int) and 0 < len(str(value)) <= _LABEL_CHARS for value in values):
        return 0
    return len(set(values))


def _suggest_columns(rows: list[Row]) -> str:
    """A task for rows of two columns of text: what people have that no format is made for."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) == 2 and all(isinstance(row.get(name), str) for row in rows for name in names):
        return (
            f"perhaps a question and its answer: task: {{kind: completion, prompt: {names[0]}, completion: {names[1]}}}"
        )
    return "name its columns in a task: kind completion, question_answering, classification ... (docs/tasks.md)"


def _ambiguous(candidates: tuple[Candidate, ...], count: int) -> str:
    shown = ", ".join(f"{each.format} ({each.fits} of {count} rows look like it)" for each in candidates)
    return f"it may be {shown}" if len(candidates) > 1 else f"too few rows are of one format: {shown}"


def _describe_columns(rows: list[Row]) -> str:
    counts = Counter(name for row in rows for name in row)
    shown = ", ".join(f"`{name}` in {count}" for name, count in counts.most_common(8))
    return f"{len(rows)} rows with {shown}" if shown else f"{len(rows)} rows without columns"


def _list(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1]))) if quoted else "nothing"
