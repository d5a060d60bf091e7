"""A corpus for benchmarks, made of the text that lies on this disk, with duplicates planted in it.

The prose of the Python installation and its packages (docstrings, README and text files) and of /usr/share/doc; where
that is not enough, the same texts again with half of their words exchanged for others of the corpus, which makes them
no duplicates and keeps how frequent words are. Copies are planted: some exact, some with words
exchanged so that their Jaccard index (of 3-word shingles) lies at 0.8 or above; which, is written down.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import zstandard

FILES = 16
_SUFFIXES = (".py", ".rst", ".txt", ".md", "README", "NEWS", "copyright")
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_WORD = re.compile(r"\w+")
_EXACT, _NEAR = 0.01, 0.02


def make_corpus(folder: Path, megabytes: int, seed: int = 7) -> dict[str, float]:
    """Write FILES files of JSON lines, {"id", "text"}, zstd; returns their size. Made once for each size and seed."""
    done = folder / "corpus.json"
    if done.is_file():
        told: dict[str, float] = json.loads(done.read_text())
        return told
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    writers = [
        zstandard.ZstdCompressor(3).stream_writer((folder / f"{n:02d}.jsonl.zst").open("wb")) for n in range(FILES)
    ]
    planted: list[tuple[str, str, float]] = []
    text_bytes = documents = 0
    texts = list(dict.fromkeys(_collect()))
    rng.shuffle(texts)
    pool = Pool(texts, rng)
    for text in _endless(texts, pool):
        rows = [(f"d{documents}", text)]
        documents += 1
        draw = rng.random()
        if draw < _EXACT + _NEAR and len(text.split()) >= 100:
            copy = text if draw < _EXACT else pool.exchange(text, rng.uniform(0.002, 0.06))
            alike = jaccard(text, copy)
            if alike >= 0.8:
                planted.append((f"d{documents}", f"d{documents - 1}", alike))
                rows.append((f"d{documents}", copy))
                documents += 1
        for name, body in rows:
            line = json.dumps({"id": name, "text": body}, ensure_ascii=False).encode()
            writers[rng.randrange(FILES)].write(line + b"\n")
            text_bytes += len(body.encode())
        if text_bytes >= megabytes * 1_000_000:
            break
    for writer in writers:
        writer.close()
    (folder / "planted.json").write_text(json.dumps(planted))
    told = {"text_mb": round(text_bytes / 1e6, 1), "documents": documents, "planted": len(planted)}
    done.write_text(json.dumps(told))
    return told


def jaccard(one: str, other: str) -> float:
    """Of 3-word shingles, lower case: written anew here, so as not to trust the code that is measured."""
    sets = []
    for text in (one, other):
        words = _WORD.findall(text.lower())
        sets.append({tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


class Pool:
    """Words as the corpus has them, the frequent ones often: what is exchanged for them stays the same kind of text."""

    def __init__(self, texts: list[str], rng: random.Random) -> None:
        self._words = [word for text in rng.sample(texts, min(len(texts), 2000)) for word in _WORD.findall(text)]
        self._rng = rng

    def exchange(self, text: str, share: float) -> str:
        """The text with a share of its words replaced."""
        rng, words = self._rng.random, self._words
        count = len(words)
        return _WORD.sub(lambda found: words[int(rng() * count)] if rng() < share else found[0], text)


def _endless(texts: list[str], pool: Pool) -> Iterator[str]:
    yield from texts
    while True:
        yield from (pool.exchange(text, 0.5) for text in texts)


def _collect() -> Iterator[str]:
    roots = [Path(os.__file__).parent, *map(Path, sys.path), Path("/usr/share/doc")]
    for root in dict.fromkeys(path.resolve() for path in roots if path.is_dir()):
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                if name.endswith(_SUFFIXES):
                    try:
                        text = Path(folder, name).read_text("utf-8")
                    except (OSError, UnicodeDecodeError):
                        continue
                    text = "\n\n".join(map(str.strip, _DOCSTRING.findall(text))) if name.endswith(".py") else text
                    if 500 < len(text) < 100_000:
                        yield text
