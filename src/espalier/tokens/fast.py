"""Many texts to ids at once, exactly as Hugging Face's tokenizers gives them, several times faster.

Words repeat: a text is cut into words by a compiled pattern, and each word's ids are looked up in a cache keyed by its
bytes; what was never seen is encoded by compiled merges. All of it runs over Arrow's buffers, without a Python string.
A tokenizer this cannot follow exactly, and a text that needs more (tokens that take white space with them), go to
Hugging Face's own code; `path` and `reason` say so.

Knows tokenizers and Arrow; not chat templates, documents or steps.

Legend: d = texts, t = tokens of all texts.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from espalier.core.errors import InvalidInput, NotFound
from espalier.tokens.bpe_tables import (
    SPACE,
    Merges,
    UnknownModel,
    byte_alphabet,
    byte_merges,
    character_merges,
    check_model,
    token_lengths,
)
from espalier.tokens.pretoken_pattern import Automaton, UnknownPattern
from espalier.tokens.pretokenizer import AddedTokens, Plan, add_tokens, read_plan
from espalier.tokens.wordcache import WordCache, as_bytes

BLOCK_BYTES = 1 << 18  # of text at a time: its pieces stay in the processor's cache
FALLBACK_TEXTS = 1000  # at a time through Hugging Face's code, which wants Python strings
Ids = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Engine:
    """What the word cache path needs, unchanging; caches apart."""

    plan: Plan
    merges: Merges
    lengths: Ids  # bytes of text per token id
    doubtful: AddedTokens  # whose id is also that of another text
    pinned: dict[bytes, int]


class FastTokenizer:
    """Ids of texts, as `tokenizers` gives them with add_special_tokens=False and no truncation or padding.

    May be used by several threads; each takes a word cache of its own and leaves it for the next. What a cache holds
    changes how fast ids come, never which.
    """

    def __init__(self, backend: Tokenizer, digest: str = "") -> None:
        settings = json.loads(backend.to_str())
        settings.update(truncation=None, padding=None, post_processor=None)
        self.digest = digest
        self._backend = Tokenizer.from_str(json.dumps(settings))
        self._idle: list[WordCache] = []
        self._engine: _Engine | None = None
        try:
            self._engine = _make_engine(settings, self._backend)
        except (UnknownPattern, UnknownModel) as unknown:
            self.reason = str(unknown)
            return
        self.reason = f"pre-tokenizer: {self._engine.plan.family}"
        if not self._agrees():
            self._engine = None
            self.reason = "the fast path gave other ids on its trial"

    @property
    def path(self) -> str:
        """Which code gives the ids: "word cache: FAMILY family" or "tokenizers"; `reason` says why."""
        return f"word cache: {self._engine.plan.family} family" if self._engine else "tokenizers"

    def encode(self, texts: pa.Array | pa.ChunkedArray) -> pa.LargeListArray:
        """Ids of each text; null for null. (d,) strings -> (d,) lists of int32"""
        array = _large(texts)
        prepared = self._prepare(array)
        ids, counts = self._splice(prepared, *self._encode(prepared.texts, keep=True))
        return _lists(array, ids, counts)

    def count(self, texts: pa.Array | pa.ChunkedArray) -> Counts:
        """How many ids each text has; 0 for null. (d,)"""
        prepared = self._prepare(_large(texts))
        counts = self._encode(prepared.texts, keep=False)[1]
        counts[prepared.routed] = [len(ids) for ids in self._encode_by_tokenizers(prepared.apart)]
        return counts

    def encode_with_ends(self, texts: pa.Array | pa.ChunkedArray) -> tuple[pa.LargeListArray, pa.LargeListArray]:
        """Ids of each text, and the byte of its UTF-8 at which each token ends: (d,) lists of int32, and of int64.

        A token that ends within a character ends, here, where that character does; one that stands for a space the
        tokenizer put before the text ends at 0.
        """
        array = _large(texts)
        prepared = self._prepare(array, altering=False)
        ids, counts = self._encode(prepared.texts, keep=True)
        ends = self._ends(prepared, ids, counts)
        routed = [self._backend.encode(text, add_special_tokens=False) for text in prepared.apart]
        all_ids, all_counts = _insert(ids, counts, prepared.routed, [np.array(one.ids, np.int32) for one in routed])
        routed_ends = [_byte_ends(text, one.offsets) for text, one in zip(prepared.apart, routed, strict=True)]
        all_ends, _ = _insert(ends, counts, prepared.routed, routed_ends)
        return _lists(array, all_ids, all_counts), _lists(array, all_ends, all_counts)

    def _agrees(self) -> bool:
        """Try both ways on texts made of what this tokenizer tells apart."""
        texts = _trial_texts(self._engine.plan, self._backend) if self._engine else []
        ours = self.encode(pa.array(texts, pa.large_string())).to_pylist()
        return bool(ours == [encoding.ids for encoding in self._backend.encode_batch(texts, add_special_tokens=False)])

    def _prepare(self, array: pa.LargeStringArray, *, altering: bool = True) -> _Prepared:
        """Normalise, and set apart what Hugging Face's code must see to; without `altering`, also what would change."""
        texts = array.fill_null("") if array.null_count else array
        everything = np.arange(len(texts))
        if self._engine is None:
            return _Prepared(pa.nulls(len(texts), pa.large_string()).fill_null(""), everything, texts.to_pylist(), 0)
        from espalier.tokens.pretoken_kernels import mark_added, mark_suspects

        plan = self._engine.plan
        routed = np.zeros(len(texts), np.bool_)
        data, offsets = text_buffers(texts)
        if len(plan.odd.ids):
            routed |= mark_added(data, offsets, plan.odd)
        original = texts
        if plan.suspects is not None:
            suspects = mark_suspects(data, offsets, plan.suspects)
            if len(plan.early.ids) and suspects.any():
                routed |= suspects & mark_added(data, offsets, plan.early)
            texts, changed = _normalise(texts, suspects & ~routed, self._backend)
            if not altering:
                routed[changed] = True
            data, offsets = text_buffers(texts)
            if len(plan.odd.ids):
                routed |= mark_added(data, offsets, plan.odd)
        if not altering:
            routed |= mark_added(data, offsets, self._engine.doubtful)
            if plan.alphabet == "characters":  # U+2581 itself is three bytes, the space it stands for one
                routed |= pc.match_substring(texts, SPACE).to_numpy(zero_copy_only=False)
        if plan.prefix != "never":
            for added in (plan.early, plan.late):
                routed |= mark_added(data, offsets, added)
        where = np.flatnonzero(routed)
        apart = original.take(pa.array(where)).to_pylist() if len(where) else []
        if len(where):
            texts = pc.if_else(pa.array(routed), pa.scalar("", pa.large_string()), texts)
        texts, prefixed = _put_spaces_first(texts, plan)
        return _Prepared(texts, where, apart, prefixed)

    def _encode(self, texts: pa.LargeStringArray, *, keep: bool) -> tuple[Ids, Counts]:
        """Ids of prepared texts (t,), none of them without `keep`, and how many each text has (d,)."""
        if self._engine is None:
            return np.zeros(0, np.int32), np.zeros(len(texts), np.int64)
        data, offsets = text_buffers(texts)
        ends = np.zeros(len(texts), np.int64)
        out = np.empty(int(offsets[-1] - offsets[0]) if keep else 0, np.int32)
        total = 0
        with self._cache() as cache:
            for first, last in _blocks(offsets):
                room = out[total:] if keep else np.empty(int(offsets[last] - offsets[first]), np.int32)
                count = self._encode_block(data, offsets[first : last + 1], cache, keep, room, ends[first:last])
                ends[first:last] += total
                total += count
        return out[:total], np.diff(ends, prepend=0)

    def _encode_block(
        self,
        data: npt.NDArray[np.uint8],
        offsets: Counts,
        cache: WordCache,
        keep: bool,
        out: Ids,
        token_ends: Counts,
    ) -> int:
        from espalier.tokens.wordcache_kernels import DONE, encode_pieces

        if self._engine is None or offsets[0] == offsets[-1]:
            return 0
        ends, kinds, pieces = _cut(data, offsets, self._engine.plan)
        cursor = np.array([0, offsets[0], 0, 0], np.int64)
        while True:
            status = encode_pieces(
                data, ends, kinds, pieces, offsets[1:], self._engine.merges, cache.slots, cache.hash_mask, cache.open,
                cache.word_bytes, keep, out, token_ends, cursor,
            )  # fmt: skip
            if status == DONE:
                return int(cursor[3])
            cache.grow()

    @contextmanager
    def _cache(self) -> Iterator[WordCache]:
        """A word cache nobody else is using."""
        try:
            cache = self._idle.pop()
        except IndexError:
            cache = WordCache(pinned=self._engine.pinned if self._engine else None)
        try:
            yield cache
        finally:
            self._idle.append(cache)

    def _splice(self, prepared: _Prepared, ids: Ids, counts: Counts) -> tuple[Ids, Counts]:
        return _insert(ids, counts, prepared.routed, self._encode_by_tokenizers(prepared.apart))

    def _encode_by_tokenizers(self, texts: list[str]) -> list[Ids]:
        found = []
        for start in range(0, len(texts), FALLBACK_TEXTS):
            batch = self._backend.encode_batch_fast(texts[start : start + FALLBACK_TEXTS], add_special_tokens=False)
            found += [np.array(encoding.ids, np.int32) for encoding in batch]
        return found

    def _ends(self, prepared: _Prepared, ids: Ids, counts: Counts) -> Counts:
        if self._engine is None:
            return np.zeros(0, np.int64)
        from espalier.tokens.wordcache_kernels import sum_lengths

        data, offsets = text_buffers(prepared.texts)
        ends: Counts = sum_lengths(data, offsets, ids, np.cumsum(counts), self._engine.lengths)
        if np.any(prepared.prefixed):
            ends = np.maximum(ends - np.repeat(np.broadcast_to(prepared.prefixed, counts.shape), counts), 0)
        return ends


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Texts for the fast path, "" where `routed` (indices) to Hugging Face's code, which gets `apart`."""

    texts: pa.LargeStringArray
    routed: npt.NDArray[np.int64]
    apart: list[str]
    prefixed: Counts | int  # bytes put before each text (d,)


_loaded: dict[str, FastTokenizer] = {}
_loading = threading.Lock()


def load_fast_tokenizer(source: Path | Tokenizer) -> FastTokenizer:
    """The fast tokenizer of a tokenizer.json (or the folder it lies in) or of a loaded `tokenizers.Tokenizer`.

    One for the whole process however often it is asked for, by the digest of what decides text -> ids. Raises NotFound
    when there is no such file, InvalidInput when it cannot be read.
    """
    backend = _read(source) if isinstance(source, Path) else source
    digest = sha256(backend.to_str().encode()).hexdigest()
    with _loading:
        if digest not in _loaded:
            _loaded[digest] = FastTokenizer(backend, digest)
        return _loaded[digest]


def text_buffers(texts: pa.LargeStringArray) -> tuple[npt.NDArray[np.uint8], Counts]:
    """The bytes of an array without nulls, and offsets into them (d + 1,). Views that cannot be written to."""
    _, places, content = texts.buffers()
    offsets: Counts = np.zeros(1, np.int64)
    if places is not None and len(texts):
        offsets = np.frombuffer(places, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(content or b"", np.uint8)
    offsets.flags.writeable = data.flags.writeable = False
    return data, offsets


def _read(path: Path) -> Tokenizer:
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise NotFound(f"no tokenizer at {file}", hint="name a tokenizer.json, or a model's folder that holds one")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception on a broken file
        raise InvalidInput(f"the tokenizer {file} cannot be read: {error}") from error


def _make_engine(settings: dict[str, Any], backend: Tokenizer) -> _Engine:
    model = settings["model"]
    check_model(model)
    normalize = backend.normalizer.normalize_str if backend.normalizer else str
    plan = read_plan(settings, normalize)
    merges = byte_merges(model) if plan.alphabet == "bytes" else character_merges(model)
    lengths = token_lengths(model, merges)
    added = settings["added_tokens"]
    last = max([len(lengths) - 1, *(token["id"] for token in added)])
    lengths = np.concatenate([lengths, np.zeros(last + 1 - len(lengths), np.int32)])
    sizes = [(token, len(token["content"].encode())) for token in added]
    doubtful = add_tokens(token for token, size in sizes if lengths[token["id"]] not in (0, size))
    for token, size in sizes:
        lengths[token["id"]] = lengths[token["id"]] or size
    pinned = _unmerged_words(model, merges) if model.get("ignore_merges") else {}
    return _Engine(plan, merges, lengths, doubtful, pinned)


def _unmerged_words(model: dict[str, Any], merges: Merges) -> dict[bytes, int]:
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


def _large(texts: pa.Array | pa.ChunkedArray) -> pa.LargeStringArray:
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    return array if pa.types.is_large_string(array.type) else array.cast(pa.large_string())


def _lists(array: pa.LargeStringArray, values: npt.NDArray[Any], counts: Counts) -> pa.LargeListArray:
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int64())
    mask = array.is_null() if array.null_count else None
    return pa.LargeListArray.from_arrays(offsets, pa.array(values), mask=mask)


def _blocks(offsets: Counts) -> Iterator[tuple[int, int]]:
    """Ranges of texts of about BLOCK_BYTES each, never less than one text."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + BLOCK_BYTES, side="right")) - 1
        last = min(max(last, first + 1), len(offsets) - 1)
        yield first, last
        first = last


def _cut(data: npt.NDArray[np.uint8], offsets: Counts, plan: Plan) -> tuple[Counts, Ids, int]:
    """Texts side by side -> ends and kinds of their pieces, and how many there are."""
    from espalier.tokens.pretoken_kernels import TEXT, cut_added, cut_pattern

    start = int(offsets[0])
    ends = offsets[1:][np.diff(offsets) > 0]
    kinds = np.full(len(ends), TEXT, np.int32)
    pieces = len(ends)
    room = int(offsets[-1]) - start
    spare = [(np.empty(room, np.int64), np.empty(room, np.int32)) for _ in range(2)]
    stages: list[Automaton | AddedTokens] = [added for added in (plan.early, plan.late) if len(added.ids)]
    for number, stage in enumerate([*stages, *plan.stages]):
        out_ends, out_kinds = spare[number % 2]
        if isinstance(stage, Automaton):
            pieces = cut_pattern(data, start, ends, kinds, pieces, stage, out_ends, out_kinds)
        else:
            pieces = cut_added(data, start, ends, kinds, pieces, stage, out_ends, out_kinds)
        ends, kinds = out_ends, out_kinds
    return ends, kinds, pieces


def _normalise(
    texts: pa.LargeStringArray, suspects: npt.NDArray[np.bool_], backend: Tokenizer
) -> tuple[pa.LargeStringArray, npt.NDArray[np.int64]]:
    """The texts with those marked normalised, and the indices of those that changed by it."""
    where = np.flatnonzero(suspects)
    before = texts.take(pa.array(where)).to_pylist()
    after = [backend.normalizer.normalize_str(text) for text in before]
    changed = where[[old != new for old, new in zip(before, after, strict=True)]] if before else where
    if not len(changed):
        return texts, changed
    mask = np.zeros(len(texts), np.bool_)
    mask[changed] = True
    replacements = [new for old, new in zip(before, after, strict=True) if old != new]
    return pc.replace_with_mask(texts, pa.array(mask), pa.array(replacements, pa.large_string())), changed


def _put_spaces_first(texts: pa.LargeStringArray, plan: Plan) -> tuple[pa.LargeStringArray, Counts | int]:
    if plan.prefix == "never":
        return texts, 0
    wanted = pc.greater(pc.binary_length(texts), 0)
    if plan.prefix == "absent":
        wanted = pc.and_not(wanted, pc.starts_with(texts, " "))
        if plan.alphabet == "characters":
            wanted = pc.and_not(wanted, pc.starts_with(texts, SPACE))
    spaces = pc.if_else(wanted, pa.scalar(" ", pa.large_string()), pa.scalar("", pa.large_string()))
    joined = pc.binary_join_element_wise(spaces, texts, pa.scalar("", pa.large_string()))
    return joined, pc.binary_length(spaces).to_numpy()


def _insert(
    values: npt.NDArray[Any], counts: Counts, where: npt.NDArray[np.int64], others: list[npt.NDArray[Any]]
) -> tuple[npt.NDArray[Any], Counts]:
    """Values of all texts in a row, those of texts `where` (which had none) taken from `others`; and the counts."""
    if not len(where):
        return values, counts
    ends = np.cumsum(counts)
    counts = counts.copy()
    counts[where] = [len(other) for other in others]
    parts = []
    done = 0
    for text, other in zip(where.tolist(), others, strict=True):
        parts += [values[done : ends[text]], other.astype(values.dtype)]
        done = int(ends[text])
    return np.concatenate([*parts, values[done:]]), counts


def _byte_ends(text: str, offsets: list[tuple[int, int]]) -> Counts:
    """Ends in characters -> ends in bytes."""
    sizes = np.fromiter((len(one.encode()) for one in text), np.int64, len(text))
    before = np.concatenate([[0], np.cumsum(sizes)])
    ends: Counts = before[np.array([end for _, end in offsets], np.int64)]
    return np.maximum.accumulate(ends) if len(ends) else ends


def _trial_texts(plan: Plan, backend: Tokenizer) -> list[str]:
    """Texts of every kind of character the plan's patterns tell apart, with words of the vocabulary between."""
    chance = random.Random(0)
    letters = sorted({chr(point) for stage in plan.stages for point in np.unique(stage.classes, return_index=True)[1]})
    letters += [*"aZs'\" \n\t\r0159,.</>", "é", "漢", "한", "א", "\u0301", "\U0001f600", "\u3000", "\ufffd"]
    words = [backend.decode([number]) for number in chance.choices(range(backend.get_vocab_size()), k=200)]
    letters = [letter for letter in letters if not 0xD800 <= ord(letter) < 0xE000]
    return ["", *("".join(chance.choices(letters + words, k=1 + number)) for number in range(100))]
