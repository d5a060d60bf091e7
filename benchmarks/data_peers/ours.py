"""The pipeline of benchmarks/data.py in Espalier: CORPUS OUT TOKENIZER CORES."""

from __future__ import annotations

import sys
from pathlib import Path

from espalier.data.build import build_dataset
from espalier.data.spec import DataSpec


def main() -> None:
    corpus, out, tokenizer, cores = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    recipe = {
        "source": {"include": ["*.jsonl.zst"], "id": ""},
        "steps": [
            {"step": "normalise", "plain_quotes": False},
            {"step": "quality", "fineweb": None, "repetition": None},
            {"step": "dedup", "near": 0.8},
            {"step": "redact"},
            {"step": "chunk", "by": "bytes", "size": 2000},
        ],
        "task": {"kind": "text"},
        "tokenizer": tokenizer,
        "split": {"test": 0, "validation": 0},
        "workers": cores,
    }
    build_dataset(DataSpec.model_validate(recipe), out / "dataset", source=corpus, cache=out / "cache")


if __name__ == "__main__":
    main()
