"""A comparison as text: Markdown for reports and cards, a rich table for a terminal. Knows how, prints nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espalier.core.types import Score
from espalier.evals.compare import Cell, Comparison, Row

if TYPE_CHECKING:
    from rich.table import Table


def render_markdown(comparison: Comparison, *, parts: bool = False) -> str:
    """One row a metric, one column a subject, the last one's gain over the first at the end.

    `parts`: with the breakdowns.
    """
    head, rows = lay_out(comparison, parts=parts)
    cells = [head, ["---"] * len(head), *rows]
    lines = ["| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in cells]
    return "\n".join([*lines, "", caption(comparison)])


def render_table(comparison: Comparison, *, parts: bool = False) -> Table:
    """The same as a rich table; a gain whose interval excludes 0 is green when it is better, red when it is worse."""
    from rich.table import Table
    from rich.text import Text

    head, rows = lay_out(comparison, parts=parts)
    table = Table(caption=caption(comparison), caption_justify="left")
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row, texts in zip(_shown(comparison, parts), rows, strict=True):
        change = row.cells[-1].change
        style = {True: "green", False: "red", None: ""}[change.is_better if change else None]
        table.add_row(*[Text(text, style if i == len(head) - 1 else "") for i, text in enumerate(texts)])
    return table


def caption(comparison: Comparison) -> str:
    """On what the figures rest, in one sentence."""
    return f"{comparison.n} cases of split {comparison.split}; 95 % intervals; differences are paired by case."


def format_score(score: Score) -> str:
    """`98.3 % [91.1, 99.7]` for a ratio, the bare number with its unit otherwise."""
    return f"{_number(score.value, score.unit)} [{_bare(score.ci_low, score.unit)}, {_bare(score.ci_high, score.unit)}]"


def format_change(cell: Cell) -> str:
    """`+97.1 [+90.2, +99.9]`: points for a ratio; empty for the baseline."""
    change, unit = cell.change, cell.score.unit
    if change is None:
        return ""
    low, high = (_bare(value, unit, "+") for value in (change.ci_low, change.ci_high))
    return f"{_bare(change.value, unit, '+')} [{low}, {high}]"


def lay_out(comparison: Comparison, *, parts: bool = False) -> tuple[list[str], list[list[str]]]:
    """(headings, rows of cells), as text."""
    with_change = len(comparison.labels) > 1
    head = ["metric", *comparison.labels, *(["difference"] if with_change else [])]
    rows = []
    for row in _shown(comparison, parts):
        cells = [format_score(cell.score) for cell in row.cells]
        rows.append([row.metric, *cells, *([format_change(row.cells[-1])] if with_change else [])])
    return head, rows


def _shown(comparison: Comparison, parts: bool) -> tuple[Row, ...]:
    return comparison.rows if parts else comparison.main_rows


def _number(value: float, unit: str) -> str:
    return f"{_bare(value, unit)} {'%' if unit == 'ratio' else unit}"


def _bare(value: float, unit: str, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}" if unit == "ratio" else f"{value:{sign}.4g}"
