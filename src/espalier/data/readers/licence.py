"""The licence of a folder of sources, as the files beside them tell it: SOURCE.md, a dataset card, LICENSE.

Knows names of licences and where people write them. Gives no legal opinion: what it cannot name it quotes.
"""

from __future__ import annotations

import re
from pathlib import Path

from espalier.core.types import Spec

_MAX_BYTES = 1 << 20
_NOTES = ("SOURCE.md", "SOURCES.md")
_CARDS = ("README.md", "DATASET_CARD.md")
_TEXTS = ("LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md", "LICENCE.txt", "LICENCE.md", "COPYING")
# What a licence's text says in its first lines, and nothing else does: the longer names first.
_HEADS = (
    (r"Attribution-NonCommercial-ShareAlike 4\.0", "CC-BY-NC-SA-4.0"),
    (r"Attribution-NonCommercial 4\.0", "CC-BY-NC-4.0"),
    (r"Attribution-ShareAlike 4\.0", "CC-BY-SA-4.0"),
    (r"Attribution-ShareAlike 3\.0", "CC-BY-SA-3.0"),
    (r"Attribution 4\.0", "CC-BY-4.0"),
    (r"Attribution 3\.0", "CC-BY-3.0"),
    (r"CC0 1\.0 Universal", "CC0-1.0"),
    (r"Apache License\s+Version 2\.0", "Apache-2.0"),
    (r"MIT License|Permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    (r"Open Data Commons Attribution License", "ODC-By-1.0"),
    (r"Open Database License", "ODbL-1.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 3", "GPL-3.0-only"),
    (r"Mozilla Public License,? [Vv]ersion 2\.0", "MPL-2.0"),
    (r"Redistribution and use in source and binary forms", "BSD-3-Clause"),
    (r"This is free and unencumbered software released into the public domain", "Unlicense"),
)
_SPDX = re.compile(
    r"(?<![\w-])(CC0-1\.0|CC-BY(?:-NC)?(?:-SA|-ND)?-[1-4]\.[05]|MIT(?:-0)?|Apache-2\.0|BSD-[234]-Clause|0BSD|ISC|"
    r"(?:L|A)?GPL-[23]\.[01](?:-only|-or-later)?|MPL-2\.0|ODC-By-1\.0|ODbL-1\.0|PDDL-1\.0|Unlicense|CDLA-Permissive-[12]\.0)"
    r"(?![\w-]|\.\d)",
    re.IGNORECASE,
)
_SPELLED = (
    *("CC0-1.0", "MIT", "MIT-0", "Apache-2.0", "0BSD", "ISC", "MPL-2.0", "ODC-By-1.0", "ODbL-1.0", "PDDL-1.0"),
    *("Unlicense", "BSD-2-Clause", "BSD-3-Clause", "BSD-4-Clause"),
)
_LINE = re.compile(r"^\s*(?:[-*]\s*)?(?:\*\*)?(licen[cs]e|source|commit)(?:\*\*)?\s*:\s*(.+?)\s*$", re.IGNORECASE)
_COPYRIGHT = re.compile(r"^\s*(copyright\s+(?:\(c\)|©|\d{4}).*?)\s*$", re.IGNORECASE | re.MULTILINE)


class Licence(Spec):
    """Under which terms a folder's files may be used, and who is to be named."""

    spdx: str  # identifiers, joined by AND when there are several; empty when none could be named
    statement: str  # as it is written there
    attribution: str  # copyright lines, and source@commit
    files: tuple[str, ...]  # where it was read


def list_terms(folder: Path) -> list[Path]:
    """The files in `folder` that `read_licence` looks at."""
    return [path for name in (*_NOTES, *_CARDS, *_TEXTS) if (path := folder / name).is_file()]


def read_licence(folder: Path) -> Licence | None:
    """What the files in `folder` say of its licence; None when they say nothing.

    A note of the sources (lines "licence: ...", "source: ...", "commit: ...") comes before a dataset card's YAML
    (`license:`), and that before a licence's text, which also gives the copyright lines.
    """
    said: dict[str, str] = {}
    files = []
    for name in _NOTES:
        if (text := _read(folder / name)) and (lines := _find_lines(text)):
            said = {**lines, **said}
            files.append(name)
    for name in _CARDS:
        if "licence" not in said and (text := _read(folder / name)) and (licence := _find_yaml(text)):
            said["licence"] = licence
            files.append(name)
    named, holders = "", ""
    for name in _TEXTS:
        if text := _read(folder / name):
            named, holders = _name_text(text), "; ".join(_COPYRIGHT.findall(text[:2000])[:3])
            files.append(name)
            break
    if not files:
        return None
    statement = said.get("licence", "") or named
    origin = "@".join(filter(None, (said.get("source", ""), said.get("commit", ""))))
    return Licence(
        spdx=find_spdx(statement) or named,
        statement=statement,
        attribution="; ".join(filter(None, (holders, origin))),
        files=tuple(files),
    )


def find_spdx(statement: str) -> str:
    """The SPDX identifiers in a sentence, in their own spelling, joined by AND; empty without any."""
    spelled = {name.lower(): name for name in _SPELLED}
    found = (match[0] for match in _SPDX.finditer(statement))
    own = (spelled.get(name.lower(), name.upper() if name.lower().startswith("cc") else name) for name in found)
    return " AND ".join(dict.fromkeys(own))


def _find_lines(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := _LINE.match(line):
            key = "licence" if match[1].lower().startswith("licen") else match[1].lower()
            found.setdefault(key, match[2])
    return found if "licence" in found else {}


def _find_yaml(text: str) -> str:
    if not text.startswith("---"):
        return ""
    match = re.search(r"^license:\s*['\"]?([\w.+-]+)", text.split("\n---", 1)[0], re.MULTILINE)
    return match[1] if match else ""


def _name_text(text: str) -> str:
    head = re.sub(r"\s+", " ", text.lstrip("\ufeff")[:3000])
    found = [
        (match.start(), name) for pattern, name in _HEADS if (match := re.search(pattern.replace(r"\s+", " "), head))
    ]
    return min(found)[1] if found else ""


def _read(path: Path) -> str:
    """The file's beginning as text; empty when it is absent, a link, or no UTF-8."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as stream:
        return stream.read(_MAX_BYTES).decode("utf-8", "replace")
