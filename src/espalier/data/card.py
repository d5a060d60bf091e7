"""The dataset card: a manifest told to a person, in Markdown. Says nothing that the manifest does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from espalier.data.manifest import DatasetManifest

_SHOWN_FILES = 20


def write_card(manifest: DatasetManifest) -> str:
    """The card's text."""
    sections = [
        f"# {manifest.name}",
        manifest.description,
        f"Licence: {manifest.licence or 'not stated'}",
        f"{manifest.examples} examples from {manifest.documents_kept} of {manifest.documents_read} documents in "
        f"{len(manifest.sources)} files ({_counts(manifest.formats)}).",
        _table("Splits", ("split", "examples"), manifest.splits.items()),
        _steps(manifest),
        _table("Left out", ("reason", "documents"), manifest.drops.items()),
        _table("Redacted", ("kind", "times"), manifest.redactions.items()),
        *(
            _table(f"Answers by `{name}`", ("value", "examples"), values.items())
            for name, values in manifest.labels.items()
        ),
        _lengths(manifest),
        _skipped(manifest),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _steps(manifest: DatasetManifest) -> str:
    rows = [(r.step, r.documents_in, r.documents_out, _counts(r.drops), _counts(r.counts)) for r in manifest.steps]
    return _table("Steps", ("step", "in", "out", "dropped", "figures"), rows)


def _lengths(manifest: DatasetManifest) -> str:
    rows = [
        (name, d.minimum, d.p5, d.median, d.p95, d.maximum)
        for name, d in (("characters", manifest.chars), ("words", manifest.words))
    ]
    return _table("Length of an example", ("in", "least", "5 %", "median", "95 %", "most"), rows)


def _skipped(manifest: DatasetManifest) -> str:
    rows = [(item.uri, item.reason) for item in manifest.skipped[:_SHOWN_FILES]]
    more = len(manifest.skipped) - len(rows)
    return _table(
        "Files that gave nothing", ("file", "reason"), [*rows, *([("...", f"{more} more")] if more > 0 else [])]
    )


def _table(title: str, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    body = [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    if not body:
        return ""
    return "\n".join([f"## {title}", "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *body])


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in values.items())
