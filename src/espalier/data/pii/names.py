"""A list of names, looked up word by word: any number of names costs one pass over a text.

The list comes from the user (a CSV of contacts). Does not guess names it was not given. In a large column only the
stretches are read where `nameindex` sees a word that begins a name.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from espalier.core.errors import InvalidInput, NotFound, did_you_mean
from espalier.data.kernels.buffers import Bytes, Offsets, is_worth_compiling, view_texts
from espalier.data.pii.finding import Finding, byte_offsets
from espalier.data.pii.windows import whole
from espalier.data.readers.plain import decode

_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_COLUMNS = ("name", "full_name", "first_name", "last_name", "given_name", "family_name", "contact", "customer")
# What may stand between the words of one name: a space, a line end, an initial, or the comma of "Family, Given".
_BETWEEN = re.compile(r",?\s{1,3}(?:[A-Z]\.\s)?")
Phrase = tuple[str, ...]


class Names:
    """Names by their first word: full names in any case and in both orders, single words only when capitalised."""

    is_local = True

    def __init__(self, names: Iterable[str], *, parts: bool = True) -> None:
        self._phrases: dict[str, list[Phrase]] = {}
        self._table: tuple[npt.NDArray[np.uint64], Bytes, Bytes] | None = None
        words: set[Phrase] = set()
        for name in names:
            phrase = tuple(word.casefold() for word in _WORD.findall(name))
            if len(phrase) > 1:
                words.update((phrase, phrase[-1:] + phrase[:-1]))
                if parts:
                    words.update((word,) for word in phrase if len(word) > 2)
            elif phrase:
                words.add(phrase)
        for phrase in sorted(words, key=lambda words: (-len(words), words)):
            self._phrases.setdefault(phrase[0], []).append(phrase)
        # In UTF-8 a letter may be twice as long in another case; between two words stands what _BETWEEN allows.
        self._reach_bytes = 8 + max((sum(2 * len(w.encode()) + 16 for w in phrase) for phrase in words), default=0)

    def find_column(self, texts: pa.LargeStringArray) -> Iterator[tuple[int, list[Finding]]]:
        """(row, findings) of the rows that have any, in order; positions are bytes."""
        data, edges = view_texts(texts)
        windows = self._find_windows(data, edges) if is_worth_compiling(texts) else whole(edges)
        view = memoryview(data.data)
        held: dict[int, list[Finding]] = {}
        for row, start, end in windows.tolist():
            text = bytes(view[start:end]).decode()
            to_byte = byte_offsets(text)
            shift = start - int(edges[row])
            for found in self.find(text):
                placed = found._replace(start=shift + to_byte(found.start), end=shift + to_byte(found.end))
                held.setdefault(row, []).append(placed)
        yield from held.items()

    def _find_windows(self, data: Bytes, edges: Offsets) -> npt.NDArray[np.int64]:
        """(w, 3): row, start and end in `data` of the stretches that may hold a name."""
        from espalier.data.pii import nameindex

        if self._table is None:
            firsts = ((first, len(phrases[0]) == 1) for first, phrases in self._phrases.items())
            self._table = nameindex.build_table(firsts)
        out = np.empty(((int(edges[-1] - edges[0]) >> 1) + len(edges), 3), np.int64)
        count = nameindex.find_name_windows(data, np.ascontiguousarray(edges), *self._table, self._reach_bytes, out)
        return out[:count]

    def find(self, text: str) -> Iterator[Finding]:
        """Findings of kind NAME, the longest at each place, never overlapping; neighbouring parts are one finding."""
        last: Finding | None = None
        for start, end in self._find_each(text):
            if last and text[last.end : start] == " ":
                last = Finding(last.start, end, "NAME", "names")
                continue
            if last:
                yield last
            last = Finding(start, end, "NAME", "names")
        if last:
            yield last

    def _find_each(self, text: str) -> Iterator[tuple[int, int]]:
        tokens = [(match.group(), match.start(), match.end()) for match in _WORD.finditer(text)]
        index = 0
        while index < len(tokens):
            count = self._match(text, tokens, index)
            if count:
                yield tokens[index][1], tokens[index + count - 1][2]
            index += count or 1

    def _match(self, text: str, tokens: list[tuple[str, int, int]], index: int) -> int:
        word = tokens[index][0]
        for phrase in self._phrases.get(word.casefold(), ()):
            window = tokens[index : index + len(phrase)]
            if len(phrase) == 1:
                return 1 if word[0].isupper() else 0
            same = tuple(token[0].casefold() for token in window) == phrase
            if same and all(_BETWEEN.fullmatch(text[a[2] : b[1]]) for a, b in itertools.pairwise(window)):
                return len(phrase)
        return 0


def read_names(path: Path, columns: tuple[str, ...] = ()) -> list[str]:
    """The names in a CSV file: of the columns asked for, else of every column that is called like a name.

    Raises NotFound without the file, InvalidInput without such a column.
    """
    if not path.is_file():
        raise NotFound(f"no file {path.name} with names", hint="`names` is relative to the source folder")
    rows = list(csv.reader(io.StringIO(decode(path.read_bytes()), newline="")))
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    wanted = [header.index(name) for name in columns or _COLUMNS if name in header]
    if not wanted or (columns and len(wanted) < len(columns)):
        missing = next((name for name in columns if name not in header), "name")
        raise InvalidInput(f"no column {missing!r}", where=f"{path.name}:1", hint=did_you_mean(missing, header))
    return [row[index] for row in rows[1:] for index in wanted if index < len(row) and row[index].strip()]
