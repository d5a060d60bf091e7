"""A record in many clothes: JSON, YAML, CSV, INI, lists, and XML in a dozen cuts. Never the demo's own schema.

`render` gives the words that ask for a format and the record in it. Values come back unescaped in all but JSON: they
are made of letters, digits and a few signs, and hold no markup.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from espalier.data.synth.draw import Draw
from espalier.data.synth.values import word

Record = list[tuple[str, str]]
Rendered = tuple[str, str]  # the words that ask for it, the record in it


def render(draw: Draw, record: Record) -> Rendered:
    """`record` in a format drawn at random; a third of the draws are XML."""
    return draw.pick(_ALL)(draw, record)


def render_xml(draw: Draw, record: Record) -> Rendered:
    return draw.pick(_XML)(draw, record)


def _json(draw: Draw, record: Record) -> Rendered:
    return "JSON", json.dumps(dict(record), ensure_ascii=False)


def _json_indented(draw: Draw, record: Record) -> Rendered:
    return "indented JSON", json.dumps(dict(record), ensure_ascii=False, indent=1)


def _json_nested(draw: Draw, record: Record) -> Rendered:
    root = word(draw)
    return f'JSON under "{root}"', json.dumps({root: dict(record)}, ensure_ascii=False)


def _yaml(draw: Draw, record: Record) -> Rendered:
    return "YAML", "\n".join([f"{key}: {value}" for key, value in record])


def _yaml_nested(draw: Draw, record: Record) -> Rendered:
    root = word(draw)
    return f"YAML under {root}", f"{root}:\n" + "\n".join([f"  {key}: {value}" for key, value in record])


def _csv(draw: Draw, record: Record) -> Rendered:
    sign, name = draw.pick(((",", "CSV"), (";", "CSV with semicolons"), ("|", "CSV with bars")))
    return name, sign.join([key for key, _ in record]) + "\n" + sign.join([value for _, value in record])


def _ini(draw: Draw, record: Record) -> Rendered:
    root = word(draw)
    return f"INI section {root}", f"[{root}]\n" + "\n".join([f"{key}={value}" for key, value in record])


def _lines(draw: Draw, record: Record) -> Rendered:
    return "a list", "\n".join([f"- {value}" for _, value in record])


def _bars(draw: Draw, record: Record) -> Rendered:
    return "one line", " | ".join([value for _, value in record])


def _table(draw: Draw, record: Record) -> Rendered:
    return "a Markdown table", "\n".join([f"| {key} | {value} |" for key, value in record])


def _xml_elements(draw: Draw, record: Record) -> Rendered:
    root, gap = word(draw), draw.pick(("", "", "\n"))
    body = gap.join([f"<{key}>{value}</{key}>" for key, value in record])
    return f"XML {root}", f"<{root}>{gap}{body}{gap}</{root}>"


def _xml_attributes(draw: Draw, record: Record) -> Rendered:
    root = word(draw)
    return f"XML attributes of {root}", f"<{root} " + " ".join([f'{key}="{value}"' for key, value in record]) + "/>"


def _xml_named(draw: Draw, record: Record) -> Rendered:
    root, item = word(draw), draw.pick(("item", "v", "field", "entry", "p"))
    body = "\n".join([f'<{item} name="{key}">{value}</{item}>' for key, value in record])
    return f"XML {root} of named {item}", f"<{root}>\n{body}\n</{root}>"


def _xml_values(draw: Draw, record: Record) -> Rendered:
    root, attribute = word(draw), draw.pick(("value", "val", "is", "v"))
    body = "".join([f'<{key} {attribute}="{value}"/>' for key, value in record])
    return f"XML {root} with empty elements, attribute {attribute}", f"<{root}>{body}</{root}>"


def _xml_prefixed(draw: Draw, record: Record) -> Rendered:
    root, prefix = word(draw), word(draw)[: draw.between(1, 3)]
    body = "\n".join([f"<{prefix}:{key}>{value}</{prefix}:{key}>" for key, value in record])
    return f"XML {prefix}:{root}", f"<{prefix}:{root}>\n{body}\n</{prefix}:{root}>"


def _xml_mixed(draw: Draw, record: Record) -> Rendered:
    """The first fields as attributes of the root, the others as elements in it."""
    root, cut = word(draw), draw.between(1, max(1, len(record) - 1))
    head = " ".join([f'{key}="{value}"' for key, value in record[:cut]])
    body = "\n".join([f"<{key}>{value}</{key}>" for key, value in record[cut:]])
    return f"XML {root} with {cut} attributes", f"<{root} {head}>\n{body}\n</{root}>"


def _xml_nested(draw: Draw, record: Record) -> Rendered:
    root, inner, cut = word(draw), word(draw), draw.between(0, max(0, len(record) - 2))
    head = "\n".join([f"<{key}>{value}</{key}>" for key, value in record[:cut]])
    body = "\n".join([f"<{key}>{value}</{key}>" for key, value in record[cut:]])
    opened = f"<{root}>\n{head}\n" if head else f"<{root}>\n"
    return (
        f"XML {root} with the last {len(record) - cut} in {inner}",
        f"{opened}<{inner}>\n{body}\n</{inner}>\n</{root}>",
    )


def _xml_pairs(draw: Draw, record: Record) -> Rendered:
    """Two fields an element, as attributes of a coined tag."""
    root, tag = word(draw), word(draw)
    pairs = [record[i : i + 2] for i in range(0, len(record), 2)]
    rows = [f"<{tag} " + " ".join([f'{key}="{value}"' for key, value in pair]) + "/>" for pair in pairs]
    return f"XML {root}, two to a {tag}", f"<{root}>\n" + "\n".join(rows) + f"\n</{root}>"


_PLAIN: tuple[Callable[[Draw, Record], Rendered], ...] = (
    _json, _json, _json_indented, _json_nested, _yaml, _yaml_nested, _csv, _ini, _lines, _bars, _table,
)  # fmt: skip
_XML: tuple[Callable[[Draw, Record], Rendered], ...] = (
    _xml_elements, _xml_elements, _xml_attributes, _xml_named, _xml_values, _xml_prefixed, _xml_mixed, _xml_mixed,
    _xml_nested, _xml_pairs,
)  # fmt: skip
_ALL = _PLAIN + _XML
