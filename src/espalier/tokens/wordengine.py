"""The fast path of one tokenizer: its plan, its merges and its word caches, over columns of prepared texts.

Knows no strings: what text needs before it can come here, and what cannot come here, is `fast`'s part.

Legend: d = texts, t = tokens of all texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from espalier.tokens.bpe_tables import (
    Merges,
    byte_alphabet,
    byte_merges,
    character_merges,
    check_model,
    token_lengths,
)
from espalier.tokens.columns import Bytes, Counts, Ids, iterate_blocks, view_texts
from espalier.tokens.pretokenizer import AddedTokens, Plan, add_tokens, read_plan
from espalier.tokens.wordcache import WordCache, as_bytes

BLOCK_BYTES = 1 << 18  # of text at a time: its pieces stay in the processor's cache


class WordEngine:
    """Made from the settings in a tokenizer.json. Raises UnknownPattern or UnknownModel where it cannot be exact."""

    def __init__(self, settings: Mapping[str, Any], backend: Tokenizer) -> None:
        model, added = settings["model"], settings["added_tokens"]
        check_model(model)
        self.plan: Plan = read_plan(settings, backend.normalizer.normalize_str if backend.normalizer else str)
        self._merges: Merges = byte_merges(model) if self.plan.alphabet == "bytes" else character_merges(model)
        self._pinned = _unmerged_words(model, self._merges) if model.get("ignore_merges") else {}
        lengths = token_lengths(model, self._merges)
        last = max([len(lengths) - 1, *(token["id"] for token in added)])
        self._lengths: Ids = np.concatenate([lengths, np.zeros(last + 1 - len(lengths), np.int32)])
        sizes = [(token, len(token["content"].encode())) for token in added]
        # Added tokens whose id is also that of a text of another length: of such an id, no length can be told.
        self.doubtful: AddedTokens = add_tokens(
            token for token, size in sizes if self._lengths[token["id"]] not in (0, size)
        )
        for token, size in sizes:
            self._lengths[token["id"]] = self._lengths[token["id"]] or size
        self._idle: list[WordCache] = []

    def encode(self, texts: pa.LargeStringArray) -> tuple[Ids, Counts]:
        """Ids (t,), and how many each text has (d,)."""
        data, offsets = view_texts(texts)
        return self._run(data, offsets, np.empty(int(offsets[-1] - offsets[0]), np.int32), keep=True)

    def count(self, texts: pa.LargeStringArray) -> Counts:
        """How many ids each text has (d,)."""
        data, offsets = view_texts(texts)
        longest = int(np.diff(offsets).max(initial=0))
        return self._run(data, offsets, np.empty(longest, np.int32), keep=False)[1]

    def ends(self, texts: pa.LargeStringArray, ids: Ids, counts: Counts) -> Counts:
        """Where each token ends, in bytes from its text's start, moved on to the end of a character. (t,)"""
        from espalier.tokens.wordcache_kernels import sum_lengths

        data, offsets = view_texts(texts)
        return sum_lengths(data, offsets, ids, np.cumsum(counts), self._lengths)

    def _run(self, data: Bytes, offsets: Counts, out: Ids, *, keep: bool) -> tuple[Ids, Counts]:
        ends = np.zeros(len(offsets) - 1, np.int64)
        total = 0
        pieces = _Pieces()
        with self._cache() as cache:
            for first, last in iterate_blocks(offsets, BLOCK_BYTES):
                room = out[total:] if keep else out
                cut = pieces.cut(data, offsets[first : last + 1], self.plan)
                count = self._encode_pieces(data, offsets[first : last + 1], cut, cache, room, ends[first:last], keep)
                ends[first:last] += total
                total += count
        return out[: total if keep else 0], np.diff(ends, prepend=0)

    def _encode_pieces(
        self,
        data: Bytes,
        offsets: Counts,
        pieces: tuple[Counts, Ids, int],
        cache: WordCache,
        out: Ids,
        token_ends: Counts,
        keep: bool,
    ) -> int:
        """Ids of a block's pieces to out, without `keep` just their number, as far as each text's end to token_ends."""
        from espalier.tokens.wordcache_kernels import DONE, encode_pieces

        cursor = np.array([0, offsets[0], 0, 0], np.int64)
        while True:
            status = encode_pieces(
                data, *pieces, offsets[1:], self._merges, cache.slots, cache.hash_mask, cache.open, cache.word_bytes,
                keep, out, token_ends, cursor,
            )  # fmt: skip
            if status == DONE:
                return int(cursor[3])
            cache.grow()

    @contextmanager
    def _cache(self) -> Iterator[WordCache]:
        """A word cache no other thread is using, the one used last first."""
        try:
            cache = self._idle.pop()
        except IndexError:
            cache = WordCache(pinned=self._pinned)
        try:
            yield cache
        finally:
            self._idle.append(cache)


class _Pieces:
    """Room for the pieces of a block, used again for the next: fresh memory would be paid for page by page."""

    def __init__(self) -> None:
        self._room = [(np.empty(0, np.int64), np.empty(0, np.int32))] * 2

    def cut(self, data: Bytes, offsets: Counts, plan: Plan) -> tuple[Counts, Ids, int]:
        """Texts side by side -> ends and kinds of their pieces (with room to spare), and how many there are."""
        from espalier.tokens.pretoken_kernels import TEXT, cut_added, cut_pattern

        start, size = int(offsets[0]), int(offsets[-1] - offsets[0])
        if len(self._room[0][0]) < size:
            self._room = [(np.empty(size, np.int64), np.empty(size, np.int32)) for _ in range(2)]
        ends = offsets[1:][np.diff(offsets) > 0]
        kinds = np.full(len(ends), TEXT, np.int32)
        count = len(ends)
        for tokens in (plan.early, plan.late):
            if len(tokens.ids):
                count = cut_added(data, start, ends, kinds, count, tokens, *self._room[0])
                ends, kinds = self._room[0]
                self._room.reverse()
        for automaton in plan.stages:
            count = cut_pattern(data, start, ends, kinds, count, automaton, *self._room[0])
            ends, kinds = self._room[0]
            self._room.reverse()
        return ends, kinds, count


def _unmerged_words(model: Mapping[str, Any], merges: Merges) -> dict[bytes, int]:
    """Words of the vocabulary that the merges do not make, which `ignore_merges` yet has stand for one id."""
    from espalier.tokens.wordcache_kernels import find_unmerged

    alphabet = byte_alphabet()
    words = {
        bytes(alphabet[one] for one in token): number
        for token, number in model["vocab"].items()
        if token and all(one in alphabet for one in token)
    }
    ends = np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))
    ids = np.fromiter(words.values(), np.int32, len(words))
    unmerged = find_unmerged(as_bytes(b"".join(words)), ends, ids, merges)
    return {word: number for (word, number), apart in zip(words.items(), unmerged.tolist(), strict=True) if apart}
