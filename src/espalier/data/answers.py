"""Looks into answers that are XML or JSON records, so that their fields can be counted and splits stratified by them.

Knows no schema: a field is a path to a value. Anything else has no fields.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

MAX_VALUES = 16  # a field with more distinct values is no label


def read_fields(answer: str) -> dict[str, str]:
    """`{"verdict@cause": "B12", "unit": "..."}` of an XML record (no root in a path), or a JSON object's leaves."""
    text = answer.strip()
    if text.startswith("<"):
        return _xml_fields(text)
    return _json_fields(text) if text.startswith("{") else {}


def count_labels(answers: Iterable[str]) -> dict[str, dict[str, int]]:
    """For each field that takes few values, how often each occurs; fields and values sorted."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    total = 0
    for answer in answers:
        total += 1
        for name, value in read_fields(answer).items():
            counts[name][value] += 1
    return {
        name: dict(sorted(values.items()))
        for name, values in sorted(counts.items())
        if len(values) <= MAX_VALUES and 2 * len(values) <= total
    }


def _xml_fields(text: str) -> dict[str, str]:
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(text.encode(), parser)
    except (etree.XMLSyntaxError, ValueError):
        return {}
    fields: dict[str, str] = {}
    _collect_xml(root, "", fields)
    return fields


def _collect_xml(element: Any, path: str, fields: dict[str, str]) -> None:
    for name, value in element.attrib.items():
        fields.setdefault(f"{path}@{_local(name)}", value)
    for child in element:
        if isinstance(child.tag, str):
            _collect_xml(child, f"{path}/{_local(child.tag)}" if path else _local(child.tag), fields)
    if path and not len(element) and (element.text or "").strip():
        fields.setdefault(path, element.text.strip())


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _json_fields(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return {}
    fields: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, dict):
            waiting += [(f"{path}.{name}" if path else str(name), child) for name, child in node.items()]
        elif isinstance(node, str | int | float | bool):
            fields[path] = str(node)
    return fields
