"""A manifest told to a person: as the Markdown card in a dataset's folder, or as plain text for a terminal.

Says nothing that the manifest does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from espalier.core.types.examples import Split
from espalier.data.manifest import DatasetManifest, Distribution

if TYPE_CHECKING:
    from espalier.data.stats import DatasetStats

_SHOWN_FILES = 20
_SPLITS = get_args(Split)
_PIPE = "\\|"


@dataclass(frozen=True, slots=True)
class Section:
    """A table with a title; one without rows is not told."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_card(manifest: DatasetManifest) -> str:
    """The card, in Markdown."""
    parts = [f"# {manifest.name}", *_sentences(manifest), *map(_to_markdown, tell_sections(manifest))]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_summary(manifest: DatasetManifest) -> str:
    """The same as plain text with aligned columns."""
    parts = [" ".join(filter(None, _sentences(manifest))), *map(_to_text, tell_sections(manifest))]
    return "\n\n".join(part for part in parts if part)


def write_stats(stats: DatasetStats) -> str:
    """Statistics of the rows as aligned tables."""
    parts = []
    for split, found in stats.splits.items():
        for part, lengths in (("question", found.question), ("answer", found.answer)):
            measured = {"characters": lengths.chars, "words": lengths.words, "tokens": lengths.tokens}
            parts += [_length_row(f"{split}, {part}, {unit}", d) for unit, d in measured.items() if d]
    alike = [(f"{tenth} and more", count) for tenth, count in stats.alike.items()]
    different = [(f"runs of {words} words", f"{share:.0%}") for words, share in stats.diversity.distinct.items()]
    sampled = stats.diversity.sampled
    sections = [
        _section("Length by split and part", ("of", "least", "5 %", "median", "95 %", "most"), parts),
        _section("Seen before", ("what", "times"), stats.duplicates.items()),
        _section("Failing a rule of quality", ("rule", "examples"), stats.quality.items()),
        _section(f"Pairs of questions by likeness (Jaccard), of {sampled}", ("likeness", "pairs"), alike),
        _section(f"Different among all, of {sampled} questions", ("what", "share"), different),
    ]
    text = f"Spread of the questions (mean cosine distance of hashed embeddings): {stats.diversity.spread:.2f}"
    return "\n\n".join([*(_to_text(section) for section in sections if section.rows), text])


def _length_row(name: str, lengths: Distribution) -> tuple[object, ...]:
    return (name, lengths.minimum, lengths.p5, lengths.median, lengths.p95, lengths.maximum)


def tell_sections(manifest: DatasetManifest) -> list[Section]:
    """Splits, steps, what was left out, what was redacted, answers by field, lengths, files that gave nothing."""
    splits = sorted(manifest.splits.items(), key=lambda item: _SPLITS.index(item[0]))
    steps = [(r.step, r.documents_in, r.documents_out, _counts(r.drops), _counts(r.counts)) for r in manifest.steps]
    units = {"characters": manifest.chars, "words": manifest.words, "tokens": manifest.tokens}
    lengths = [_length_row(unit, spread) for unit, spread in units.items() if spread]
    licences = [(name, told.get("statement", ""), told.get("attribution", ""), told.get("files", ""))
                for name, told in sorted(manifest.licences.items())]  # fmt: skip
    skipped = [(item.uri, item.reason) for item in manifest.skipped[:_SHOWN_FILES]]
    more = len(manifest.skipped) - len(skipped)
    skipped += [("...", f"{more} more, in exclusions.parquet")] if more > 0 else []
    sections = [
        _section("Terms of the sources", ("source", "licence", "credit", "said in"), licences),
        _section("Splits", ("split", "examples"), splits),
        _section("Languages", ("language", "documents"), manifest.languages.items()),
        _section("Steps", ("step", "in", "out", "dropped", "figures"), steps),
        _section("Left out", ("reason", "documents"), manifest.drops.items()),
        _section("Redacted", ("kind", "times"), manifest.redactions.items()),
        *(
            _section(f"Answers by {name}", ("value", "examples"), found.items())
            for name, found in manifest.labels.items()
        ),
        _section("Length of an example", ("in", "least", "5 %", "median", "95 %", "most"), lengths),
        _section("Files that gave nothing", ("file", "reason"), skipped),
    ]
    return [section for section in sections if section.rows]


def _sentences(manifest: DatasetManifest) -> list[str]:
    kept, read = manifest.documents_kept, manifest.documents_read
    made = f"made of {read}" if kept > read else f"from {kept} of {read}"  # more came of them than there were
    return [
        manifest.description,
        f"Licence: {manifest.licence or 'not stated'}.",
        f"{manifest.examples} examples {made} documents in {len(manifest.sources)} files "
        f"({_counts(manifest.formats)}).",
    ]


def _section(title: str, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Section:
    return Section(title, header, tuple(tuple(str(value).replace("\n", " ") for value in row) for row in rows))


def _to_markdown(section: Section) -> str:
    lines = [f"| {' | '.join(cell.replace('|', _PIPE) for cell in row)} |" for row in section.rows]
    return "\n".join(
        [f"## {section.title}", "", f"| {' | '.join(section.header)} |", f"|{'---|' * len(section.header)}", *lines]
    )


def _to_text(section: Section) -> str:
    rows = section.rows if len(section.header) == 2 else (section.header, *section.rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([section.title, *(f"  {line.rstrip()}" for line in lines)])


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in values.items())
