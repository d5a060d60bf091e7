"""The pipeline of benchmarks/data.py in datatrove 0.10, tuned: CORPUS OUT TOKENIZER CORES.

Tuned: words by white space instead of spaCy, uncompressed JSON lines between its stages, xxhash, as many
tasks as cores for the stages that scale. Its stages must meet on disk: signatures, buckets, clusters, filter.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.formatters.base import BaseFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter, ParquetWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

_BLANKS = re.compile(r"[ \t]+\n")
_LINES = re.compile(r"\n{3,}")


class CheapWords(WordTokenizer):
    def word_tokenize(self, text):
        return text.split()

    def sent_tokenize(self, text):
        return text.split("\n")

    def span_tokenize(self, text):
        return [(0, len(text))]


class Normalise(BaseFormatter):
    name = "normalise"

    def format(self, text):
        text = text if text.isascii() else unicodedata.normalize("NFC", text)
        return _LINES.sub("\n\n", _BLANKS.sub("\n", text.replace("\r\n", "\n"))).strip()


class ChunkAndTokenise:
    """Chunks of up to 2000 characters at line ends, with their ids."""

    def __init__(self, path):
        self.path = path

    def __call__(self, data, rank=0, world_size=1):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(self.path)
        waiting = []

        def flush():
            encoded = tokenizer.encode_batch_fast([chunk.text for chunk in waiting], add_special_tokens=False)
            for chunk, found in zip(waiting, encoded, strict=True):
                chunk.metadata["input_ids"] = found.ids
            yield from waiting
            waiting.clear()

        for document in data:
            for number, text in enumerate(cut(document.text), 1):
                waiting.append(Document(text=text, id=f"{document.id}.{number}", metadata={}))
            if len(waiting) >= 512:
                yield from flush()
        yield from flush()


def cut(text, size=2000):
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            found = max(text.rfind("\n\n", start + size // 2, end), text.rfind("\n", start + size // 2, end))
            end = found + 1 if found > 0 else end
        yield text[start:end]
        start = end


def main():
    corpus, out, tokenizer, cores = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    words = CheapWords()
    config = MinhashConfig(n_grams=3, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
    tasks = 16

    def run(steps, count=tasks):
        LocalPipelineExecutor(steps, tasks=count, workers=cores, logging_dir=None, skip_completed=False).run()

    kept = str(out / "kept")
    run(
        [
            JsonlReader(corpus, glob_pattern="*.jsonl.zst", compression="zstd"),
            Normalise(),
            GopherQualityFilter(language=words),
            JsonlWriter(kept, compression=None),
        ]
    )
    run([JsonlReader(kept, compression=None), MinhashDedupSignature(str(out / "sigs"), config=config, language=words)])
    run([MinhashDedupBuckets(str(out / "sigs"), str(out / "buckets"), config=config)], config.num_buckets)
    run([MinhashDedupCluster(str(out / "buckets"), str(out / "remove"), config=config)], 1)
    run(
        [
            JsonlReader(kept, compression=None),
            MinhashDedupFilter(str(out / "remove")),
            PIIFormatter(),
            ChunkAndTokenise(tokenizer),
            ParquetWriter(str(out / "dataset"), compression="zstd", expand_metadata=True),
        ]
    )


if __name__ == "__main__":
    main()
