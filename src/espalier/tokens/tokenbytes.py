"""The bytes a token stands for: a token may be a part of a character, so its text alone does not tell.

Byte-level vocabularies spell bytes as printable characters (GPT-2's alphabet); SentencePiece-like ones write a space as
U+2581 and single bytes as <0xNN>. Knows no chat.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"
_known: WeakKeyDictionary[Tokenizer, tuple[str, frozenset[int]]] = WeakKeyDictionary()  # alphabet, added ids


def token_bytes(backend: Tokenizer, id: int) -> bytes:
    """What token `id` puts into a text, empty for an id there is none of; of an added token, its content."""
    token = backend.id_to_token(id)
    if token is None:
        return b""
    if backend not in _known:
        _known[backend] = (_find_alphabet(backend), frozenset(backend.get_added_tokens_decoder()))
    alphabet, added = _known[backend]
    if id in added or alphabet == "plain":
        return str(token).encode()
    if alphabet == "bytes":
        known = _spelt_bytes()
        return b"".join(known.get(character, character.encode()) for character in token)
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(_SPACE, " ").encode()


def _find_alphabet(backend: Tokenizer) -> str:
    decoder = json.dumps(json.loads(backend.to_str()).get("decoder"))
    if '"ByteLevel"' in decoder:
        return "bytes"
    return "pieces" if '"Metaspace"' in decoder or '"ByteFallback"' in decoder else "plain"


@lru_cache(maxsize=1)
def _spelt_bytes() -> dict[str, bytes]:
    """Character -> byte: https://github.com/openai/gpt-2/blob/master/src/encoder.py, `bytes_to_unicode`."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    spelt = {chr(byte): bytes([byte]) for byte in printable}
    return spelt | {chr(256 + place): bytes([byte]) for place, byte in enumerate(others)}
