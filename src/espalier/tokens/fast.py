"""Many texts to ids at once, exactly as Hugging Face's tokenizers gives them, many times faster.

Words repeat: a text is cut into words by a compiled pattern, and each word's ids are looked up in a cache keyed by its
bytes; what was never seen is encoded by compiled merges. All of it runs over Arrow's buffers, without a Python string.
A tokenizer this cannot follow exactly, and a text that needs more (tokens that take white space with them), go to
Hugging Face's own code; `path` and `reason` say so. So do the first texts, until there are enough to make it pay.

Knows tokenizers and Arrow; not chat templates, documents or steps.

Legend: d = texts, t = tokens of all texts.
"""

from __future__ import annotations

import json
import random
import threading
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from espalier.core.errors import InvalidInput, NotFound
from espalier.tokens.bpe_tables import SPACE, UnknownModel
from espalier.tokens.columns import Counts, Flags, Ids, as_large, ends_in_bytes, insert_lists, make_lists, view_texts
from espalier.tokens.pretoken_pattern import UnknownPattern
from espalier.tokens.pretokenizer import Plan
from espalier.tokens.wordengine import WordEngine

WORTHWHILE_BYTES = 2 << 20  # of text before the word cache is made: a second, in which tokenizers does as much
FALLBACK_TEXTS = 1000  # at a time through Hugging Face's code, which wants Python strings
_NO_TEXT = pa.scalar("", pa.large_string())


class FastTokenizer:
    """Ids of texts, as `tokenizers` gives them with add_special_tokens=False and no truncation or padding.

    May be used by several threads; each takes a word cache of its own and leaves it for the next. What a cache holds
    changes how fast ids come, never which.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._settings = json.loads(backend.to_str())
        self._settings.update(truncation=None, padding=None, post_processor=None)  # neither is for whole texts
        self.digest = _digest(backend)  # of what decides text -> ids; `ChatTokenizer.digest` is the same
        self._backend = Tokenizer.from_str(json.dumps(self._settings))
        self._engine: WordEngine | None = None
        self._reason = ""  # why there is an engine or none; empty until one was tried
        self._trying = threading.Lock()
        self._seen_bytes = 0

    @property
    def path(self) -> str:
        """Which code gives the ids: "word cache: FAMILY family" or "tokenizers"; `reason` says why."""
        engine = self._try_engine()
        return f"word cache: {engine.plan.family} family" if engine else "tokenizers"

    @property
    def reason(self) -> str:
        """Why `path` is what it is."""
        self._try_engine()
        return self._reason

    def encode(self, texts: pa.Array | pa.ChunkedArray) -> pa.LargeListArray:
        """Ids of each text; null for null. (d,) strings -> (d,) lists of int32"""
        array = as_large(texts)
        engine = self._engine_for(array)
        if engine is None:
            others = self._encode_apart(array.fill_null("").to_pylist())
            counts = np.fromiter(map(len, others), np.int64, len(others))
            return make_lists(array, np.concatenate([*others, np.zeros(0, np.int32)]), counts)
        return self._encode_by(engine, array)

    def count(self, texts: pa.Array | pa.ChunkedArray) -> Counts:
        """How many ids each text has; 0 for null. (d,)"""
        array = as_large(texts)
        engine = self._engine_for(array)
        if engine is None:
            others = self._encode_apart(array.fill_null("").to_pylist())
            return np.fromiter(map(len, others), np.int64, len(others))
        prepared = _prepare(array, engine, self._backend)
        counts = engine.count(prepared.texts)
        counts[prepared.apart] = [len(ids) for ids in self._encode_apart(prepared.strings)]
        return counts

    def encode_with_ends(self, texts: pa.Array | pa.ChunkedArray) -> tuple[pa.LargeListArray, pa.LargeListArray]:
        """Ids of each text, and the byte of its UTF-8 at which each token ends: (d,) lists of int32, and of int64.

        A token that ends within a character ends, here, where that character does; one that stands for a space the
        tokenizer put before the text ends at 0.
        """
        array = as_large(texts)
        ids, counts, ends = np.zeros(0, np.int32), np.zeros(len(array), np.int64), np.zeros(0, np.int64)
        prepared = _Prepared(array, np.arange(len(array)), array.fill_null("").to_pylist(), counts)
        engine = self._engine_for(array)
        if engine is not None:
            prepared = _prepare(array, engine, self._backend, altering=False)
            ids, counts = engine.encode(prepared.texts)
            ends = engine.ends(prepared.texts, ids, counts)
            ends = np.maximum(ends - np.repeat(prepared.prefixed, counts), 0)
        found = [self._backend.encode(text, add_special_tokens=False) for text in prepared.strings]
        found_ends = [
            ends_in_bytes(text, [end for _, end in one.offsets])
            for text, one in zip(prepared.strings, found, strict=True)
        ]
        ends, _ = insert_lists(ends, counts, prepared.apart, found_ends)
        ids, counts = insert_lists(ids, counts, prepared.apart, [np.array(one.ids, np.int32) for one in found])
        return make_lists(array, ids, counts), make_lists(array, ends, counts)

    def _encode_apart(self, texts: list[str]) -> list[Ids]:
        found = []
        for start in range(0, len(texts), FALLBACK_TEXTS):
            batch = self._backend.encode_batch_fast(texts[start : start + FALLBACK_TEXTS], add_special_tokens=False)
            found += [np.array(encoding.ids, np.int32) for encoding in batch]
        return found

    def _encode_by(self, engine: WordEngine, array: pa.LargeStringArray) -> pa.LargeListArray:
        prepared = _prepare(array, engine, self._backend)
        ids, counts = engine.encode(prepared.texts)
        return make_lists(array, *insert_lists(ids, counts, prepared.apart, self._encode_apart(prepared.strings)))

    def _engine_for(self, array: pa.LargeStringArray) -> WordEngine | None:
        """The word cache, if there can be one and so much text has come by now that it pays to make it."""
        self._seen_bytes += array.nbytes
        return self._try_engine() if self._reason or self._seen_bytes >= WORTHWHILE_BYTES else None

    def _try_engine(self) -> WordEngine | None:
        with self._trying:
            if self._reason:
                return self._engine
            try:
                engine = WordEngine(self._settings, self._backend)
            except (UnknownPattern, UnknownModel) as unknown:
                self._reason = str(unknown)
                return None
            # Both ways, on texts made of what this tokenizer tells apart.
            texts = _trial_texts(engine.plan, self._backend)
            ours = self._encode_by(engine, pa.array(texts, pa.large_string())).to_pylist()
            if ours != [ids.tolist() for ids in self._encode_apart(texts)]:
                self._reason = "the word cache gave other ids on its trial"
                return None
            self._engine, self._reason = engine, f"the pre-tokenizer is known: {engine.plan.family}"
            return engine


_loaded: dict[str, FastTokenizer] = {}
_loading = threading.Lock()


def load_fast_tokenizer(source: Path | Tokenizer) -> FastTokenizer:
    """The fast tokenizer of a tokenizer.json (or the folder it lies in) or of a loaded `tokenizers.Tokenizer`.

    One for the whole process however often it is asked for, by the digest of what decides text -> ids. Raises NotFound
    when there is no such file, InvalidInput when it cannot be read.
    """
    if not isinstance(source, Path):
        return _share(source)
    file = source / "tokenizer.json" if source.is_dir() else source
    if not file.is_file():
        raise NotFound(f"no tokenizer at {file}", hint="name a tokenizer.json, or a model's folder that holds one")
    status = file.stat()
    return _load_file(file.resolve(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _load_file(file: Path, _time_ns: int, _size_bytes: int) -> FastTokenizer:
    """A file is read again only when it changed: steps ask for their tokenizer once a batch."""
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception on a broken file
        raise InvalidInput(f"the tokenizer {file} cannot be read: {error}") from error
    return _share(backend)


def _share(backend: Tokenizer) -> FastTokenizer:
    digest = _digest(backend)
    with _loading:
        if digest not in _loaded:
            _loaded[digest] = FastTokenizer(backend)
        return _loaded[digest]


def _digest(backend: Tokenizer) -> str:
    return sha256(backend.to_str().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Texts for the word cache, and those for Hugging Face's code, which are "" among the former."""

    texts: pa.LargeStringArray  # (d,) normalised, without nulls
    apart: Counts  # the indices of
    strings: list[str]  # these, as they were given
    prefixed: Counts  # bytes put before each text (d,)


def _prepare(array: pa.LargeStringArray, engine: WordEngine, backend: Tokenizer, *, altering: bool = True) -> _Prepared:
    """Normalise, and set apart what the word cache cannot do; without `altering`, also what it would change."""
    from espalier.tokens.pretoken_kernels import mark_added, mark_suspects

    plan = engine.plan
    given = array.fill_null("") if array.null_count else array
    data, offsets = view_texts(given)
    apart = mark_added(data, offsets, plan.odd)
    texts = given
    if not altering:
        apart |= mark_added(data, offsets, engine.doubtful)
        if plan.alphabet == "characters":  # U+2581 itself is three bytes, the space it stands for is one
            apart |= pc.match_substring(texts, SPACE).to_numpy(zero_copy_only=False)
    if plan.suspects is not None:
        suspects = mark_suspects(data, offsets, plan.suspects)
        if suspects.any():  # added tokens are found before what lies between them is normalised
            apart |= suspects & mark_added(data, offsets, plan.early)
        texts, changed = _normalise(given, suspects & ~apart, backend)
        if not altering:
            apart |= changed
        data, offsets = view_texts(texts)
        apart |= mark_added(data, offsets, plan.odd)
    if plan.prefix != "never":
        apart |= mark_added(data, offsets, plan.early) | mark_added(data, offsets, plan.late)
    where = np.flatnonzero(apart)
    if not len(where):
        return _Prepared(*_put_spaces_first(texts, plan, where, []))
    strings = given.take(pa.array(where)).to_pylist()
    return _Prepared(*_put_spaces_first(pc.if_else(pa.array(apart), _NO_TEXT, texts), plan, where, strings))


def _normalise(texts: pa.LargeStringArray, suspects: Flags, backend: Tokenizer) -> tuple[pa.LargeStringArray, Flags]:
    """The texts with those marked normalised, and which of them changed by it (d,)."""
    changed = np.zeros(len(texts), np.bool_)
    where = np.flatnonzero(suspects)
    found = []
    for row, before in zip(where.tolist(), texts.take(pa.array(where)).to_pylist(), strict=True):
        after = backend.normalizer.normalize_str(before)
        if after != before:
            changed[row] = True
            found.append(after)
    if found:
        texts = pc.replace_with_mask(texts, pa.array(changed), pa.array(found, pa.large_string()))
    return texts, changed


def _put_spaces_first(
    texts: pa.LargeStringArray, plan: Plan, apart: Counts, strings: list[str]
) -> tuple[pa.LargeStringArray, Counts, list[str], Counts]:
    """What `_Prepared` holds, with the space the plan wants before each text (none before "")."""
    if plan.prefix == "never":
        return texts, apart, strings, np.zeros(len(texts), np.int64)
    wanted = pc.greater(pc.binary_length(texts), 0)
    if plan.prefix == "absent":
        wanted = pc.and_not(wanted, pc.starts_with(texts, " "))
        if plan.alphabet == "characters":
            wanted = pc.and_not(wanted, pc.starts_with(texts, SPACE))
    spaces = pc.if_else(wanted, pa.scalar(" ", pa.large_string()), _NO_TEXT)
    return pc.binary_join_element_wise(spaces, texts, _NO_TEXT), apart, strings, pc.binary_length(spaces).to_numpy()


def _trial_texts(plan: Plan, backend: Tokenizer) -> list[str]:
    """Texts of every kind of character the plan's patterns tell apart, with words of the vocabulary between."""
    chance = random.Random(0)
    letters = sorted({chr(point) for stage in plan.stages for point in np.unique(stage.classes, return_index=True)[1]})
    letters += [*"aZs'\" \n\t\r0159,.</>", "é", "漢", "한", "א", "\u0301", "\U0001f600", "\u3000", "\ufffd"]
    words = [backend.decode([number]) for number in chance.choices(range(backend.get_vocab_size()), k=200)]
    return ["", *("".join(chance.choices(letters + words, k=1 + number)) for number in range(100))]
