"""The vocabulary and merges of a BPE model as arrays the kernels read. Knows tokenizer.json's model part only.

Two alphabets: `bytes` (GPT-2's, where each byte is written as one visible character) and `characters` (SentencePiece's,
where a space is written as U+2581 and what the vocabulary lacks is spelt in bytes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SPACE = "\u2581"
NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads consecutive numbers (Knuth 6.4)


class UnknownModel(Exception):
    """The model is not a BPE the kernels compute exactly; str() says why."""


class Merges(NamedTuple):
    """What the kernels need of a model.

    pairs: uint64 (slots, 2), an open-addressing table: key `left << 32 | right` (NOTHING where empty), value
    `rank << 32 | merged id`; a key's search starts at `key * GOLDEN >> shift`. byte_ids: int32 (256,).
    character_ids: int32 (0x110000,) or (0,) for the alphabet of bytes; -1 where a character is spelt in bytes.
    """

    pairs: npt.NDArray[np.uint64]
    shift: int
    byte_ids: npt.NDArray[np.int32]
    character_ids: npt.NDArray[np.int32]


@cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's visible character -> byte (https://github.com/openai/gpt-2/blob/master/src/encoder.py)."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    shown = {chr(byte): byte for byte in visible}
    return shown | {chr(256 + number): byte for number, byte in enumerate(hidden)}


def check_model(model: Mapping[str, Any]) -> None:
    """Raises UnknownModel for a model the kernels would not reproduce."""
    if model.get("type") != "BPE":
        raise UnknownModel(f"the model is {model.get('type')}, not BPE")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise UnknownModel(f"the model has {name}")


def byte_merges(model: Mapping[str, Any]) -> Merges:
    """Tables of a byte-level model. Raises UnknownModel when a byte has no id."""
    vocabulary: dict[str, int] = model["vocab"]
    byte_ids = np.zeros(256, np.int32)
    for character, byte in byte_alphabet().items():
        if character not in vocabulary:
            raise UnknownModel(f"no token for the byte {byte:#04x}")
        byte_ids[byte] = vocabulary[character]
    return Merges(*_pair_table(vocabulary, model["merges"]), byte_ids, np.zeros(0, np.int32))


def character_merges(model: Mapping[str, Any]) -> Merges:
    """Tables of a SentencePiece-style model. Raises UnknownModel unless it spells unknown characters in bytes."""
    vocabulary: dict[str, int] = model["vocab"]
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    if not model.get("byte_fallback") or any(name not in vocabulary for name in names):
        raise UnknownModel("the model does not spell unknown characters in bytes")
    character_ids = np.full(0x110000, -1, np.int32)
    for token, number in vocabulary.items():
        if len(token) == 1:
            character_ids[ord(token)] = number
    if character_ids[ord(SPACE)] < 0:
        raise UnknownModel("no token for a space")
    character_ids[ord(" ")] = character_ids[ord(SPACE)]
    byte_ids = np.array([vocabulary[name] for name in names], np.int32)
    return Merges(*_pair_table(vocabulary, model["merges"]), byte_ids, character_ids)


def token_lengths(model: Mapping[str, Any], merges: Merges) -> npt.NDArray[np.int32]:
    """How many bytes of text each token of the model stands for. (ids,)"""
    vocabulary: dict[str, int] = model["vocab"]
    lengths = np.zeros(max(vocabulary.values(), default=-1) + 1, np.int32)
    by_bytes = len(merges.character_ids) == 0
    for token, number in vocabulary.items():
        lengths[number] = len(token) if by_bytes else len(token.replace(SPACE, " ").encode())
    lengths[merges.byte_ids] = 1
    return lengths


def merged_tokens(model: Mapping[str, Any]) -> list[str]:
    """What the merges can make."""
    return ["".join(_pair(merge)) for merge in model["merges"]]


def _pair_table(vocabulary: Mapping[str, int], merges: Sequence[Any]) -> tuple[npt.NDArray[np.uint64], int]:
    values: dict[int, int] = {}
    for rank, merge in enumerate(merges):
        left, right = _pair(merge)
        key = vocabulary[left] << 32 | vocabulary[right]
        values[key] = rank << 32 | vocabulary[left + right]  # a pair given twice has its last rank, as in tokenizers
    return _open_addressing(values)


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _open_addressing(values: Mapping[int, int]) -> tuple[npt.NDArray[np.uint64], int]:
    """Linear probing at most half full, filled in rounds: all that still lack a slot try their next one together."""
    bits = max(4, (2 * len(values)).bit_length())
    shift = 64 - bits
    table = np.full((1 << bits, 2), NOTHING, np.uint64)
    keys = np.fromiter(values.keys(), np.uint64, len(values))
    filling = np.fromiter(values.values(), np.uint64, len(values))
    with np.errstate(over="ignore"):
        slots = (keys * np.uint64(GOLDEN)) >> np.uint64(shift)
    while len(keys):
        first = np.zeros(len(keys), np.bool_)
        first[np.unique(slots, return_index=True)[1]] = True
        placed = first & (table[slots, 0] == NOTHING)
        table[slots[placed]] = np.stack([keys[placed], filling[placed]], axis=1)
        keys, filling, slots = keys[~placed], filling[~placed], slots[~placed]
        slots = (slots + np.uint64(1)) & np.uint64((1 << bits) - 1)
    table.flags.writeable = False
    return table, shift
