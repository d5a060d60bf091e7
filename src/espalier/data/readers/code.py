"""Source code, configuration and logs: the text as it is, tagged with its language.

A licence that the file itself names (SPDX) becomes a tag. Nothing is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from espalier.core.types import Document
from espalier.data.readers.plain import decode
from espalier.data.readers.plugin import versioned
from espalier.data.readers.source import SourceFile, suffix_of

LICENCE_WITHIN_CHARS = 4_000
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9][\w.+() -]{0,100}?)[ \t]*(?:\*/|-->|$)", re.MULTILINE)
_DECLARED = re.compile(rb"<\?xml[^>]{0,100}encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{2,40})")

LANGUAGES = {
    "bash": "bash", "bat": "batch", "c": "c", "cc": "cpp", "cfg": "ini", "clj": "clojure", "cmake": "cmake",
    "coffee": "coffeescript", "cpp": "cpp", "cs": "csharp", "css": "css", "cu": "cuda", "cxx": "cpp", "dart": "dart",
    "ex": "elixir", "exs": "elixir", "erl": "erlang", "f90": "fortran", "fs": "fsharp", "go": "go", "gradle": "groovy",
    "graphql": "graphql", "groovy": "groovy", "h": "c", "hcl": "hcl", "hpp": "cpp", "hs": "haskell", "ini": "ini",
    "java": "java", "jl": "julia", "js": "javascript", "jsx": "javascript", "kt": "kotlin", "less": "less",
    "log": "log", "lua": "lua", "m": "matlab", "mjs": "javascript", "ml": "ocaml", "nim": "nim", "php": "php",
    "pl": "perl", "pm": "perl", "proto": "protobuf", "ps1": "powershell", "py": "python", "pyi": "python", "r": "r",
    "rb": "ruby", "rs": "rust", "scala": "scala", "scss": "scss", "sh": "bash", "sql": "sql", "swift": "swift",
    "tex": "latex", "tf": "hcl", "toml": "toml", "ts": "typescript", "tsx": "typescript", "vue": "vue", "xml": "xml",
    "xsd": "xml", "yaml": "yaml", "yml": "yaml", "zig": "zig", "zsh": "bash",
}  # fmt: skip


@versioned(1, trusted=True)
def read_code(source: SourceFile) -> Iterator[Document]:
    """One document: the whole file, not changed in any way but its encoding."""
    data = source.read_bytes()
    text = _decode_declared(data)
    if not text.strip():
        return
    tags = {"code_language": LANGUAGES.get(suffix_of(source.uri), "")}
    licence = _SPDX.search(text, 0, LICENCE_WITHIN_CHARS)
    tags["licence"] = licence[1].strip() if licence else ""
    kept = {name: value for name, value in tags.items() if value}
    yield Document(source.document_id(1), text, source.span(end=len(text)), kept)


def _decode_declared(data: bytes) -> str:
    """By the encoding an XML declaration names when it is true, else as any text."""
    declared = _DECLARED.match(data)
    if declared:
        try:
            return data.decode(declared[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass
    return decode(data)
