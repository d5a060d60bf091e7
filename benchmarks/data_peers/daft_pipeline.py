"""The pipeline of benchmarks/data.py in Daft 0.7 with tiktoken: CORPUS OUT TOKENIZER CORES.

What Daft has natively is done natively (reading, MinHash, regular expressions, joins, Parquet); the rest in batched
functions. Candidates of MinHash bands are joined by union-find; nothing is verified.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from pathlib import Path

CORPUS, OUT, TOKENIZER, CORES = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
os.environ["DAFT_PROGRESS_BAR"] = "0"
os.environ["DAFT_ANALYTICS_ENABLED"] = "0"

import daft  # noqa: E402
import tiktoken  # noqa: E402
from daft import DataType, Series, col  # noqa: E402
from daft.functions import minhash, regexp_replace  # noqa: E402

BANDS, ROWS = 14, 8
_BLANKS = re.compile(r"[ \t]+\n")
_LINES = re.compile(r"\n{3,}")
_LETTER = re.compile(r"[^\W\d_]")
_STOP = {"the", "be", "to", "of", "and", "that", "have", "with"}
_EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,15}"
_IP = r"\b(?:\d{1,3}\.){3}\d{1,3}\b"


def load_encoding():
    # GPT-2's vocabulary and ranks are tiktoken's "gpt2"; read from the tokenizer's file, for there may be no network.
    told = json.loads(Path(TOKENIZER).read_text())
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {chr(byte): byte for byte in printable}
    names |= {chr(256 + n): byte for n, byte in enumerate(b for b in range(256) if b not in printable)}
    special = {token["content"] for token in told["added_tokens"]}
    ranks = {bytes(names[c] for c in word): n for word, n in told["model"]["vocab"].items() if word not in special}
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


ENCODING = load_encoding()


@daft.func.batch(return_dtype=DataType.string())
def normalise(texts: Series):
    out = []
    for text in texts.to_pylist():
        text = text if text.isascii() else unicodedata.normalize("NFC", text)
        out.append(_LINES.sub("\n\n", _BLANKS.sub("\n", text.replace("\r\n", "\n"))).strip())
    return out


@daft.func.batch(return_dtype=DataType.bool())
def good(texts: Series):
    return [judge(text) for text in texts.to_pylist()]


def judge(text: str) -> bool:
    words = text.split()
    count = len(words)
    if not 50 <= count <= 100_000 or not 3 <= sum(map(len, words)) / count <= 10:
        return False
    if text.count("#") > count / 10 or text.count("...") > count / 10:
        return False
    lines = text.split("\n")
    if sum(line.lstrip().startswith(("•", "-")) for line in lines) > 0.9 * len(lines):
        return False
    if sum(line.rstrip().endswith("...") for line in lines) > 0.3 * len(lines):
        return False
    if sum(_LETTER.search(word) is not None for word in words) < 0.8 * count:
        return False
    return len(_STOP.intersection(words)) >= 2


@daft.func.batch(return_dtype=DataType.list(DataType.string()))
def chunk(texts: Series):
    return [list(cut(text)) for text in texts.to_pylist()]


def cut(text, size=2000):
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            found = max(text.rfind("\n\n", start + size // 2, end), text.rfind("\n", start + size // 2, end))
            end = found + 1 if found > 0 else end
        yield text[start:end]
        start = end


@daft.func.batch(return_dtype=DataType.list(DataType.int32()))
def tokenise(texts: Series):
    return ENCODING.encode_ordinary_batch(texts.to_pylist(), num_threads=CORES)


def main():
    files = str(Path(CORPUS) / "*.jsonl.zst")
    clean = daft.read_json(files, schema={"id": DataType.string(), "text": DataType.string()})
    clean = clean.with_column("text", normalise(col("text"))).where(good(col("text")))
    clean.write_parquet(str(OUT / "kept"), compression="none")
    kept = daft.read_parquet(str(OUT / "kept") + "/*.parquet")
    signed = kept.select("id", minhash(col("text"), num_hashes=BANDS * ROWS, ngram_size=3, seed=1).alias("sig"))
    table = signed.to_arrow()
    drop = find_duplicates(table["id"].to_pylist(), table["sig"])
    gone = daft.from_pydict({"id": sorted(drop)}) if drop else None
    left = kept.join(gone, on="id", how="anti") if gone is not None else kept
    text = regexp_replace(regexp_replace(col("text"), _EMAIL, "[EMAIL]"), _IP, "[IP]")
    left = left.with_column("text", text).with_column("text", chunk(col("text"))).explode("text")
    left.with_column("input_ids", tokenise(col("text"))).write_parquet(str(OUT / "dataset"), compression="zstd")


def find_duplicates(ids, signatures):
    import numpy as np

    values = np.asarray(signatures.combine_chunks().flatten()).reshape(len(ids), BANDS * ROWS)
    parent = list(range(len(ids)))

    def find(x):
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    for band in range(BANDS):
        first = {}
        for row, key in enumerate(map(bytes, np.ascontiguousarray(values[:, band * ROWS : (band + 1) * ROWS]))):
            low, high = sorted((find(first.setdefault(key, row)), find(row)))
            parent[high] = low
    return {ids[row] for row in range(len(ids)) if find(row) != row}


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # its runtime may crash while Python shuts down
