"""Metrics of answers that are XML records: valid by a schema; equal to the reference field by field.

The whole answer is the document: words around it, or a code fence, make it invalid, as they would for the program that
reads it. An answer is untrusted: the parser expands no entity, reads no DTD, opens no file and no socket, and a
document type declaration is itself a fault.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lxml import etree

from espalier.core.errors import InvalidInput, NotFound
from espalier.metrics.metric import Answered, Measurement, Metric, Ratio

_XSD = "{http://www.w3.org/2001/XMLSchema}"
_NAMESPACE_OR_POSITION = re.compile(r"\{[^}]*\}|\[\d+\]")


def xml_valid(schema: str) -> Metric:
    """1 when the answer is well-formed and valid by an XSD 1.0 `schema`, given as its text or as the path of a file.

    Raises NotFound for a file that is not there, InvalidInput for what is no schema, or one that pulls in others.
    """
    checker = _load_schema(schema)

    def measure(case: Answered) -> Measurement:
        try:
            root = parse_xml(case.answer)
        except ValueError as error:
            return Measurement(0.0, why=str(error))
        if checker.validate(root):
            return Measurement(1.0)
        fault = checker.error_log[0]
        return Measurement(0.0, why=f"line {fault.line}: {fault.message}")

    return Ratio("xml_valid", measure)


def xml_fields() -> Metric:
    """The share of leaf fields, by path, that equal the reference's.

    A field missing from the answer and one that only the answer has both count as wrong, so the share is over the union
    of the two. `parts` holds 1 or 0 for each path of the reference, named without namespaces; repeated siblings are
    compared in order and share one part.
    """

    def measure(case: Answered) -> Measurement:
        try:
            wanted = list_fields(parse_xml(case.reference))
        except ValueError as error:
            raise InvalidInput(
                f"the reference is not XML: {error}", where=f"example {case.id}",
                hint="xml_fields compares XML with XML; mend the example or leave this metric out",
            ) from None  # fmt: skip
        try:
            found = list_fields(parse_xml(case.answer))
        except ValueError as error:
            return Measurement(0.0, dict.fromkeys(map(_part, wanted), 0.0), why=str(error))
        return _compare_fields(wanted, found)

    return Ratio("xml_fields", measure)


def parse_xml(text: str) -> Any:
    """The root element of an untrusted document. Raises ValueError saying what is wrong with it, and where."""
    # A parser keeps its error log, so none is shared. Some options are the defaults, written because they matter.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(text.strip().encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"not well-formed: {error.msg}") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise ValueError("has a document type declaration")
    return root


def list_fields(root: Any) -> dict[str, str]:
    """Every leaf of a document, in its order: `ticket/@id`, `ticket/cause`, `ticket/step[2]` -> text, spaces collapsed.

    A leaf is an attribute, an element without children that has text or no attribute, or loose text among children
    (`text()`). Names keep their namespace in braces.
    """
    return dict(_walk(root, str(root.tag)))


def _walk(element: Any, path: str) -> Iterator[tuple[str, str]]:
    for name, value in element.attrib.items():
        yield f"{path}/@{name}", " ".join(value.split())
    children = [child for child in element if isinstance(child.tag, str)]
    text = " ".join("".join([element.text or "", *(child.tail or "" for child in element)]).split())
    if not children and (text or not element.attrib):
        yield path, text
    elif text:
        yield f"{path}/text()", text
    seen: Counter[str] = Counter()
    for child in children:  # libxml2 refuses documents deeper than 256, so recursion is safe
        seen[child.tag] += 1
        suffix = f"[{seen[child.tag]}]" if seen[child.tag] > 1 else ""
        yield from _walk(child, f"{path}/{child.tag}{suffix}")


def _compare_fields(wanted: dict[str, str], found: dict[str, str]) -> Measurement:
    parts: dict[str, float] = {}
    faults = []
    paths = [*wanted, *(path for path in found if path not in wanted)]
    for path in paths:
        equal = path in wanted and path in found and wanted[path] == found[path]
        if not equal:
            what = "missing" if path not in found else "extra" if path not in wanted else "wrong"
            faults.append(f"{what} {path}")
        if path in wanted:
            parts[_part(path)] = min(parts.get(_part(path), 1.0), float(equal))
    return Measurement((len(paths) - len(faults)) / len(paths), parts, why="; ".join(faults))


def _part(path: str) -> str:
    """The path without namespaces and positions of repeated siblings: what a breakdown over cases is keyed by."""
    return _NAMESPACE_OR_POSITION.sub("", path)


def _load_schema(schema: str) -> Any:
    where = "the schema"
    if not schema.lstrip().startswith("<"):
        path = Path(schema)
        if not path.is_file():
            raise NotFound(f"no schema file {schema}", hint="give the path of an .xsd file, or its text")
        where, schema = schema, path.read_text("utf-8")
    try:
        root = parse_xml(schema)
        for tag in ("include", "import", "redefine"):
            for node in root.iter(f"{_XSD}{tag}"):
                raise InvalidInput(
                    f"xs:{tag} of another schema",
                    where=f"{where}:{node.sourceline}",
                    hint="put all types into one file",
                )
        return etree.XMLSchema(root)
    except (ValueError, etree.XMLSchemaParseError) as error:
        raise InvalidInput(f"not an XML schema: {error}", where=where, hint="check it with xmllint --schema") from None
