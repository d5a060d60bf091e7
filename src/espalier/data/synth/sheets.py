"""Sheets: forty-eight record formats with a name, each always the same, that no request ever describes.

"Write the Cedar sheet" means: these fields, under these tags, with these codes, in this order. A model that has learnt
a few dozen of them by heart has learnt what it is to have a house format: the next one costs it little. The book is
thrown once from a fixed seed; the demo's own format is not in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from espalier.data.synth import labels, values
from espalier.data.synth import vocabulary as words
from espalier.data.synth.domains import DOMAINS, Domain, Field
from espalier.data.synth.draw import Draw

_SHEETS = 48
_Slot = Literal["attribute", "element", "pair"]  # of the root; with text; two to an empty element


_SLOTS: tuple[_Slot, ...] = ("element", "element", "pair")


@dataclass(frozen=True, slots=True)
class Sheet:
    """One format. `tags` name what `fields` and then `label_sets` say; `order` is the order they are written in."""

    name: str
    domain: Domain
    fields: tuple[Field, ...]
    label_sets: tuple[str, ...]
    codes: tuple[dict[str, str], ...]  # for each label set: meaning -> code
    tags: tuple[str, ...]
    order: tuple[int, ...]
    frame: Frame


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around the values: XML unless `kind` says otherwise."""

    kind: Literal["xml", "json", "yaml", "lines"]
    root: str
    prefix: str  # "" or "ab:"
    constant: str  # attributes of the root that never change, as written
    slots: tuple[_Slot, ...]
    pair_tag: str
    gap: str


def fill_sheet(sheet: Sheet, answers: list[str]) -> str:
    """The sheet with `answers`, which are in the order of `tags`."""
    record = [(sheet.tags[i], answers[i]) for i in sheet.order]
    frame = sheet.frame
    if frame.kind == "json":
        return json.dumps({frame.root: dict(record)}, ensure_ascii=False)
    if frame.kind == "yaml":
        return f"{frame.root}:\n" + "\n".join([f"  {tag}: {value}" for tag, value in record])
    if frame.kind == "lines":
        return f"[{frame.root}]\n" + "\n".join([f"{tag}={value}" for tag, value in record])
    return _write_xml(frame, record)


def _write_xml(frame: Frame, record: list[tuple[str, str]]) -> str:
    head = [frame.constant] if frame.constant else []
    rows: list[str] = []
    pending: list[str] = []
    for (tag, value), slot in zip(record, frame.slots, strict=True):
        if slot == "attribute":
            head.append(f'{tag}="{value}"')
        elif slot == "element":
            rows.append(f"<{frame.prefix}{tag}>{value}</{frame.prefix}{tag}>")
        else:
            pending.append(f'{tag}="{value}"')
            if len(pending) == 2:
                rows.append(f"<{frame.prefix}{frame.pair_tag} {' '.join(pending)}/>")
                pending.clear()
    if pending:
        rows.append(f"<{frame.prefix}{frame.pair_tag} {pending[0]}/>")
    root = f"{frame.prefix}{frame.root}"
    return frame.gap.join([f"<{' '.join([root, *head])}>", *rows, f"</{root}>"])


def _throw_sheet(draw: Draw, name: str) -> Sheet:
    domain = draw.pick(DOMAINS)
    fields = tuple(draw.sample(domain.fields, draw.between(3, 5)))
    label_sets = tuple(draw.sample(tuple(dict.fromkeys(domain.label_sets)), draw.between(1, 2)))
    count = len(fields) + len(label_sets)
    tags: dict[str, None] = {}
    for field in fields:
        tags[field.key if draw.chance(0.3) else values.word(draw)] = None
    while len(tags) < count:
        tags[values.word(draw)] = None
    codes = tuple(draw.pick((labels.name_by_code, labels.name_by_meaning))(draw, one).names for one in label_sets)
    return Sheet(
        name,
        domain,
        fields,
        label_sets,
        codes,
        tuple(tags),
        tuple(draw.shuffled(range(count))),
        _throw_frame(draw, count),
    )


def _throw_frame(draw: Draw, count: int) -> Frame:
    prefix = draw.letters(draw.between(1, 3)).lower() if draw.chance(0.4) else ""
    root = values.word(draw)
    constants = [""]
    if prefix:
        constants = [
            f'xmlns:{prefix}="urn:{values.word(draw)}:{root}"',
            f'xmlns:{prefix}="http://{root}.example/{draw.between(1, 9)}"',
        ]
    elif draw.chance(0.5):
        constants = [
            f'version="{draw.between(1, 9)}"',
            f'v="{draw.between(1, 5)}.{draw.between(0, 9)}"',
            f'type="{values.word(draw)}"',
        ]
    attributes: list[_Slot] = ["attribute"] * draw.between(0, 2)
    rest: list[_Slot] = [draw.pick(_SLOTS) for _ in range(count - len(attributes))]
    return Frame(
        kind=draw.pick(("xml", "xml", "xml", "xml", "json", "yaml", "lines")),
        root=root,
        prefix=f"{prefix}:" if prefix else "",
        constant=draw.pick(constants),
        slots=(*attributes, *rest),
        pair_tag=values.word(draw),
        gap=draw.pick(("\n", "\n", "")),
    )


def _throw_book() -> tuple[Sheet, ...]:
    draw = Draw("sheets 1")
    return tuple(_throw_sheet(draw, name) for name in draw.sample(words.BRANDS, _SHEETS))


SHEETS = _throw_book()
