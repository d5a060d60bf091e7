"""Parts of an Office package that word processor, slides and sheets share: relations, charts, diagrams."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.data.readers.blocks import Block, Item, Paragraph, Table
from espalier.data.readers.container import Package, attribute, child, local_name
from espalier.data.readers.tabletext import flatten

MAX_POINTS = 10_000


def relations_of(package: Package, part: str) -> dict[str, tuple[str, str]]:
    """Relation id -> (kind, name of the part it leads to) of one part; outside targets are left out."""
    folder, name = posixpath.split(part)
    path = posixpath.join(folder, "_rels", f"{name}.rels")
    if path not in package:
        return {}
    found = {}
    for each in package.xml(path):
        if local_name(each) != "Relationship" or each.get("TargetMode") == "External":
            continue
        target = str(each.get("Target", ""))
        full = target.lstrip("/") if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))
        found[str(each.get("Id", ""))] = (str(each.get("Type", "")).rsplit("/", 1)[-1], full)
    return found


def main_part(package: Package, default: str) -> str:
    """The part the package is about."""
    for kind, target in relations_of(package, "").values():
        if kind == "officeDocument" and target in package:
            return target
    return default


def linked(relations: dict[str, tuple[str, str]], kind: str) -> list[str]:
    """The parts that relations of a kind lead to, in order of their ids' appearance."""
    return [target for each, target in relations.values() if each == kind]


def read_chart(package: Package, part: str) -> list[Block]:
    """A chart as its kind, title and a table: a row a category, a column a series (the values cached in the file)."""
    root = _optional(package, part)
    if root is None:
        return []
    names = [local_name(each) for each in root.iter()]
    kind = next((name.removesuffix("Chart").removesuffix("3D") for name in names if name.endswith("Chart")), "")
    title = _texts(next((each for each in root.iter() if local_name(each) == "title"), None))
    caption = ": ".join(filter(None, (f"{kind.capitalize()} chart".strip().capitalize(), title)))
    series = [each for each in root.iter() if local_name(each) == "ser"]
    heads = [_points(child(each, "tx")) for each in series]
    labels: dict[int, str] = {}
    for each in series:
        labels = labels or _points(_first(each, "cat", "xVal"))
    values = [_points(_first(each, "val", "yVal")) for each in series]
    rows = sorted({*labels, *(index for column in values for index in column)})
    head = ["", *(" ".join(name.values()) for name in heads)]
    body = [[labels.get(index, ""), *(column.get(index, "") for column in values)] for index in rows]
    table = Table(tuple(map(tuple, [head, *body]))) if body else None
    return [Paragraph(caption), table] if table else []


def read_diagram(package: Package, part: str) -> list[Block]:
    """A SmartArt diagram as a list of its texts."""
    root = _optional(package, part)
    if root is None:
        return []
    texts = [_texts(point) for point in root.iter() if local_name(point) == "pt"]
    return [Item(text) for text in texts if text]


def graphic_parts(element: Any, relations: dict[str, tuple[str, str]], package: Package) -> list[Block]:
    """The blocks of the charts and diagrams that a drawing or a slide frame refers to."""
    blocks: list[Block] = []
    for each in element.iter():
        name = local_name(each)
        if name == "chart" and (found := relations.get(attribute(each, "id"))):
            blocks += read_chart(package, found[1])
        elif name == "relIds" and (found := relations.get(attribute(each, "dm"))):
            blocks += read_diagram(package, found[1])
    return blocks


def read_properties(package: Package) -> dict[str, str]:
    """Title of the package as a tag, where it has one."""
    root = _optional(package, "docProps/core.xml")
    found = child(root, "title") if root is not None else None
    title = " ".join((found.text or "").split()) if found is not None else ""
    return {"title": title[:200]} if title else {}


def write_comment(author: str, text: str, when: str = "") -> Block:
    """A reviewer's comment, set apart as a quotation; `when` is an ISO time."""
    by = f" by {flatten(author)}" if author.strip() else ""
    at = f", {when.split('.')[0].removesuffix('Z')}" if when else ""
    return Paragraph(f"> Comment{by}{at}: {flatten(text)}" if text.strip() else "")


def _optional(package: Package, part: str) -> Any:
    """A part that the document can do without; None when it is absent or broken."""
    try:
        return package.xml(part) if part in package else None
    except InvalidInput:
        return None


def _first(element: Any, *names: str) -> Any:
    return next((found for found in (child(element, name) for name in names) if found is not None), None)


def _points(element: Any) -> dict[int, str]:
    """The cached points of a chart's reference, by index."""
    if element is None:
        return {}
    found: dict[int, str] = {}
    for index, point in _each_point(element):
        found[index] = _number(point)
        if len(found) >= MAX_POINTS:
            break
    if not found:
        plain = child(element, "v")
        return {0: plain.text or ""} if plain is not None else {}
    return found


def _each_point(element: Any) -> Iterator[tuple[int, str]]:
    for each in element.iter():
        if local_name(each) == "pt":
            value = child(each, "v")
            index = attribute(each, "idx")
            if value is not None and index.isdigit():
                yield int(index), value.text or ""


def _number(text: str) -> str:
    """A number without the noise of its binary form: 4.4000000000000004 is 4.4."""
    try:
        number = float(text)
    except ValueError:
        return text
    return f"{number:.12g}" if abs(number) < 1e15 else text


def _texts(element: Any) -> str:
    """The text runs in an element; empty for None."""
    if element is None:
        return ""
    return flatten("".join(each.text or "" for each in element.iter() if local_name(each) == "t"))
