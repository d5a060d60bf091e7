"""Tokenising text on one core: the word cache beside Hugging Face's tokenizers and tiktoken, CPU time, ids compared.

Text from this machine's disk: documentation, Python sources and the PEPs (`prose`), and the stop lists of a hundred
languages, in which hardly a word comes twice (`words`): the worst a cache of words can meet. Each shard goes through
every engine in turn, so that what else the machine does hits all alike. "cold" starts with an empty cache; "from file"
adds reading the tokenizer and making its tables and kernels ready; "warm" has seen the text before. Prints rows and,
last, JSON with ratios (theirs over ours).

    .venv/bin/python benchmarks/tokenise.py [--megabytes 32]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core for each

import pyarrow as pa
from tokenizers import Tokenizer

from espalier.tokens.bpe_tables import byte_alphabet
from espalier.tokens.fast import FastTokenizer
from espalier.tokens.pretokenizer import GPT2, LLAMA3

try:
    import tiktoken
except ImportError:
    tiktoken = None  # type: ignore[assignment]
    print("without tiktoken: pip install tiktoken to compare with it too")

SHARED = Path(__file__).resolve().parents[2] / "shared"
SHARD_BYTES = 4 << 20
Engine = Callable[[list[str], pa.Array], Any]


def read_prose(most_bytes: int) -> list[str]:
    """The PEPs, then documentation and sources in the order of their paths."""
    texts = []
    peps = SHARED / "data/peps/peps_even_rst.tar.gz"
    if peps.is_file():
        with tarfile.open(peps) as archive:
            members = sorted((member for member in archive if member.isfile()), key=lambda member: member.name)
            texts += [archive.extractfile(member).read().decode(errors="replace") for member in members]  # type: ignore[union-attr]
    size = sum(map(len, texts))
    for text in _site_files((".md", ".rst", ".txt", ".py")):
        if size >= most_bytes:
            break
        texts.append(text)
        size += len(text.encode())
    return texts


def read_words() -> list[str]:
    """Word lists in a hundred languages, which justext (a part of trafilatura) brings."""
    found = importlib.util.find_spec("justext")
    folder = Path(found.origin or "").parent / "stoplists" if found else Path("/nonexistent")
    return [" ".join(path.read_text().split()) for path in sorted(folder.glob("*.txt"))]


def _site_files(suffixes: tuple[str, ...]) -> Iterator[str]:
    roots = [Path(sysconfig.get_paths()["purelib"]), Path(sysconfig.get_paths()["stdlib"])]
    by_suffix = sorted(
        (suffixes.index(path.suffix), str(path))
        for root in roots
        for path in root.rglob("*")
        if path.suffix in suffixes and "stoplists" not in path.parts and path.is_file()
    )
    for _, path in by_suffix:
        content = Path(path).read_bytes()
        if len(content) < 1 << 20:
            yield content.decode(errors="replace")


def make_tokenizers(folder: Path) -> dict[str, tuple[Path, str]]:
    """name -> tokenizer.json and the pattern tiktoken needs for the same ids ("" where it cannot give them)."""
    gpt2 = SHARED / "models/gpt2-tokenizer/tokenizer.json"
    seedling = Path(str(files("espalier"))) / "models/seedling/tokenizer.json"
    settings = json.loads(Tokenizer.from_file(str(gpt2)).to_str())
    settings["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    llama = folder / "tokenizer.json"
    llama.write_text(json.dumps(settings))
    return {"gpt2": (gpt2, GPT2), "llama3 pattern": (llama, LLAMA3), "seedling": (seedling, "")}


def make_tiktoken(file: Path, pattern: str) -> tiktoken.Encoding:
    """The same vocabulary for tiktoken."""
    settings = json.loads(file.read_text())
    added = {token["content"] for token in settings["added_tokens"]}
    alphabet = byte_alphabet()
    ranks = {
        bytes(alphabet[one] for one in token): number
        for token, number in settings["model"]["vocab"].items()
        if token not in added
    }
    return tiktoken.Encoding("same", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def cut_shards(texts: list[str]) -> list[list[str]]:
    """Texts in shards of about SHARD_BYTES."""
    shards: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size >= SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(text)
        size += len(text.encode())
    return shards


def measure(name: str, file: Path, pattern: str, texts: list[str]) -> dict[str, float]:
    """CPU seconds of each engine over the texts. Stops when an id differs from Hugging Face's."""
    cpu_s: dict[str, float] = {}

    def timed(label: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        found = work()
        cpu_s[label] = cpu_s.get(label, 0.0) + time.process_time() - started
        return found

    theirs = timed("hf load", lambda: Tokenizer.from_file(str(file)))
    ours = timed("ours load", lambda: FastTokenizer(Tokenizer.from_file(str(file))))
    path = timed("ours load", lambda: ours.path)
    other = make_tiktoken(file, pattern) if pattern and tiktoken else None
    shards = [(shard, pa.array(shard, pa.large_string())) for shard in cut_shards(texts)]
    for number, (shard, column) in enumerate(shards):
        expected = timed(
            "hf",
            lambda: [one.ids for one in theirs.encode_batch_fast(shard, add_special_tokens=False)],  # noqa: B023
        )
        found = timed("ours cold", lambda: ours.encode(column))  # noqa: B023
        if found.to_pylist() != expected:
            raise SystemExit(f"{name}: other ids in shard {number}")
        if other and timed("tiktoken", lambda: [other.encode_ordinary(text) for text in shard]) != expected:  # noqa: B023
            raise SystemExit(f"{name}: tiktoken gives other ids in shard {number}")
    for _, column in shards:
        timed("ours warm", lambda: ours.encode(column))  # noqa: B023
    for _, column in shards:
        timed("ours count", lambda: ours.count(column))  # noqa: B023
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    rates = "  ".join(f"{label} {megabytes / value:.1f}" for label, value in cpu_s.items() if "load" not in label)
    print(f"{name} ({path}), {megabytes:.1f} MB, MB per CPU second: {rates}; made in {cpu_s['ours load']:.1f} s")
    return cpu_s


def make_ratios(cpu_s: dict[str, float]) -> dict[str, float]:
    """Theirs over ours."""
    ratios = {
        "hf_cold": cpu_s["hf"] / cpu_s["ours cold"],
        "hf_cold_from_file": (cpu_s["hf load"] + cpu_s["hf"]) / (cpu_s["ours load"] + cpu_s["ours cold"]),
        "hf_warm": cpu_s["hf"] / cpu_s["ours warm"],
        "hf_count": cpu_s["hf"] / cpu_s["ours count"],
    }
    if "tiktoken" in cpu_s:
        ratios["tiktoken_cold"] = cpu_s["tiktoken"] / cpu_s["ours cold"]
        ratios["tiktoken_warm"] = cpu_s["tiktoken"] / cpu_s["ours warm"]
    return {name: round(value, 2) for name, value in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=32)
    prose, words = read_prose(parser.parse_args().megabytes * 1_000_000), read_words()
    FastTokenizer(Tokenizer.from_file(str(files("espalier") / "models/seedling/tokenizer.json"))).path  # noqa: B018 - compiles
    results: dict[str, Any] = {"ids_equal": True, "ratios": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, pattern) in make_tokenizers(Path(folder)).items():
            cpu_s = measure(f"{name}, prose", file, pattern, prose)
            results["ratios"][name] = make_ratios(cpu_s)
            if name == "gpt2" and words:
                results["ratios"]["gpt2 words"] = make_ratios(measure("gpt2, words", file, pattern, words))
    results["megabytes"] = round(sum(len(text.encode()) for text in prose) / 1e6, 1)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
