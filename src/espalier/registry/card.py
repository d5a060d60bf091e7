"""The model card: a version told to a person, in Markdown, from nothing but what is recorded.

The sections follow Mitchell et al. (2019), Model Cards for Model Reporting, as far as the registry knows the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from espalier.core.types import EvalReport, ModelVersion, Score
from espalier.registry.evidence import read_dataset_facts, read_reports
from espalier.registry.policy import HELD_OUT, PolicyClause
from espalier.registry.versions import get_version
from espalier.store.store import Store


def make_card(store: Store, ref: str, clauses: Sequence[PolicyClause] = ()) -> str:
    """The card of a version as the store knows it now. Raises NotFound, DigestMismatch."""
    version = get_version(store, ref)
    dataset = read_dataset_facts(store, version.dataset) if version.dataset else {}
    return render_card(version, read_reports(store, version.reports), dataset, clauses)


def render_card(
    version: ModelVersion, reports: Sequence[EvalReport], dataset: Mapping[str, Any],
    clauses: Sequence[PolicyClause] = (),
) -> str:  # fmt: skip
    """The card's text. `dataset` is the manifest of the dataset version; what it does not say is left out."""
    sections = [
        f"# {version.ref}",
        version.description,
        _what_it_is(version),
        _data(version, dataset),
        _evaluation(reports),
        _approvals(version, clauses),
        _limits(version, reports),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _what_it_is(version: ModelVersion) -> str:
    kind = "A LoRA adapter (PEFT format) on a frozen base" if version.adapter else "A base model as it is"
    facts = [
        ("base", f"`{version.base}`"), ("base digest", _code(version.base_digest)),
        ("adapter", _code(version.adapter)), ("prompt", _code(version.prompt)), ("dataset", _code(version.dataset)),
        ("made by run", version.run), ("submitted", f"{_day(version.created_ms)} by {version.submitted_by}"),
        ("status", version.status),
    ]  # fmt: skip
    return f"{kind}.\n\n" + _table(("", ""), [row for row in facts if row[1]])


def _data(version: ModelVersion, dataset: Mapping[str, Any]) -> str:
    if not version.dataset:
        return "## Data\n\nNo training data is named."
    lines = [dataset.get("description", "")]
    if "examples" in dataset:
        splits = ", ".join(f"{count} {split}" for split, count in dataset.get("splits", {}).items())
        lines.append(f"{dataset['examples']} examples ({splits}) from {len(dataset.get('sources', ()))} files.")
    lines.append(f"Licence: {dataset.get('licence') or 'not stated'}.")
    redactions: Mapping[str, int] = dataset.get("redactions", {})
    found = ", ".join(f"{count} {kind}" for kind, count in redactions.items())
    lines.append(f"Personal data replaced before training: {found or 'none was found'}.")
    drops = ", ".join(f"{count} {reason}" for reason, count in dataset.get("drops", {}).items())
    lines.append(f"Left out: {drops}." if drops else "")
    return "## Data\n\n" + "\n".join(line for line in lines if line)


def _evaluation(reports: Sequence[EvalReport]) -> str:
    if not reports:
        return "## Evaluation\n\nNot evaluated."
    rows = [
        (report.label, report.split, score.name, _format(score), str(score.n))
        for report in reports
        for score in report.scores
        if "/" not in score.name
    ]
    return "## Evaluation\n\nWith 95 % intervals.\n\n" + _table(("who", "split", "metric", "score", "cases"), rows)


def _approvals(version: ModelVersion, clauses: Sequence[PolicyClause]) -> str:
    rows = [(each.decision, each.actor, _day(each.at_ms), each.comment) for each in version.approvals]
    parts = [_table(("decision", "by", "on", "comment"), rows) if rows else "Not decided yet."]
    if clauses:
        met = [("met" if clause.ok else "NOT met", clause.name, clause.why) for clause in clauses]
        parts.append(_table(("policy", "clause", "found"), met))
    return "## Approval\n\n" + "\n\n".join(parts)


def _limits(version: ModelVersion, reports: Sequence[EvalReport]) -> str:
    held_out = [report for report in reports if report.split == HELD_OUT]
    cases = max((score.n for report in held_out for score in report.scores), default=0)
    lines = [
        f"- The figures rest on {cases} held-out cases of one dataset; on other inputs they say nothing."
        if cases
        else "- There is no figure on held-out data.",
        "- An interval covers the chance of which cases were drawn, not a change in what is asked.",
    ]
    if version.adapter:
        lines.append("- The adapter works with the base of the digest above and with no other.")
    return "## Limits\n\n" + "\n".join(lines)


def _format(score: Score) -> str:
    scale, unit = (100, " %") if score.unit == "ratio" else (1, f" {score.unit}")
    value, low, high = (f"{number * scale:.4g}" for number in (score.value, score.ci_low, score.ci_high))
    return f"{value}{unit} [{low}, {high}]"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _code(digest: str) -> str:
    return f"`{digest}`" if digest else ""


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
