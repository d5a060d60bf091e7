"""The bytes of single tokens: what an id stands for where it is only a part of a character, which decoding cannot show.

Byte-level BPE writes each byte as a printable character (the table of openai/gpt-2, encoder.py); SentencePiece writes a
space as U+2581, and with byte fallback a byte as `<0xE2>`. Knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"


def speller(backend: Tokenizer) -> Callable[[int], bytes]:
    """A function from an id to its bytes: those of the word itself for a special token, none for an id without one."""
    added = {id: token.content for id, token in backend.get_added_tokens_decoder().items()}
    by_bytes = "ByteLevel" in repr(backend.decoder)

    def spell(id: int) -> bytes:
        word = added.get(id) or backend.id_to_token(id) or ""
        if id in added:
            return word.encode()
        if by_bytes:
            table = _byte_of()
            return bytes(table[letter] for letter in word) if all(letter in table for letter in word) else word.encode()
        byte = _BYTE.fullmatch(word)
        return bytes([int(byte[1], 16)]) if byte else word.replace(_SPACE, " ").encode()

    return spell


@lru_cache(maxsize=1)
def _byte_of() -> dict[str, int]:
    """Bytes that print stand for themselves, the others follow from U+0100 in order."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
