"""From raw text to training tokens, beside datatrove and Daft: time, memory, and whether duplicates are found.

    python benchmarks/data.py                    300 MB, one core and two, both peers
    python benchmarks/data.py --megabytes 30     a quick look
    python benchmarks/data.py --large 3000       also our memory on ten times as much

Read JSONL.zst -> normalise -> Gopher quality -> exact and near duplicates -> personal data -> chunk -> tokenise (GPT-2)
-> Parquet. Every tool runs as a process of its own, one after another, on the cores it is given. The peers live in
environments of their own, made at the first run. What they leave out makes them faster, not slower: neither keeps what
it dropped, validates what looks like personal data, or verifies what looks like a duplicate; ours does all three.

Prints a table and, last, JSON: `ratios` are theirs over ours.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import zstandard
from data_corpus import jaccard, make_corpus

HERE = Path(__file__).parent
PEERS = {
    "datatrove": (
        "datatrove_pipeline.py",
        ["datatrove[io,processing]==0.10.1", "tokenizers==0.23.2", "orjson", "xxhash==3.5.0"],
    ),
    "daft": ("daft_pipeline.py", ["daft==0.7.26", "tiktoken==0.14.0", "numpy"]),
}
_NAMED = re.compile(r"near duplicate of (\S+) .*Jaccard")


@dataclass(slots=True)
class Measured:
    """One run of one tool."""

    wall_s: float
    cpu_s: float
    peak_mb: float  # memory of its own (anonymous pages) of all its processes together
    rss_mb: float  # with what is mapped from files, counted once for each process
    tokens: int
    recall: float


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--large", type=int, default=0, help="megabytes of a larger corpus, for our memory alone")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tools", nargs="+", default=["ours", *PEERS])
    parser.add_argument("--work", type=Path, default=HERE.parent / ".benchmarks", help="corpora and environments")
    parser.add_argument(
        "--tokenizer", type=Path, default=HERE.parent / "../shared/models/gpt2-tokenizer/tokenizer.json"
    )
    given = parser.parse_args()
    given.work, given.tokenizer = given.work.resolve(), given.tokenizer.resolve()
    corpus = given.work / f"corpus-{given.megabytes}"
    told = make_corpus(corpus, given.megabytes)
    print(
        f"{told['text_mb']} MB of text, {told['documents']} documents, {told['planted']} planted duplicates", flush=True
    )
    runs: dict[tuple[str, int], Measured] = {}
    precision = 0.0
    warm_up(given.work, given.tokenizer)
    for cores in given.cores:
        for tool in given.tools:
            out = given.work / f"out-{tool}"
            runs[tool, cores] = run_tool(tool, corpus, out, given.tokenizer, cores, given.work)
            if tool == "ours":
                precision = measure_precision(corpus, out / "dataset")
            shutil.rmtree(out)
            show(tool, cores, runs[tool, cores], told["text_mb"])
    result: dict[str, Any] = {"text_mb": told["text_mb"], "ratios": compare(runs), "precision": precision}
    result["runs"] = {
        f"{tool} on {cores}": {name: round(getattr(run, name), 4) for name in Measured.__slots__}
        for (tool, cores), run in runs.items()
    }
    if given.large:
        result["memory"] = measure_large(given, runs)
    print(json.dumps(result))


def warm_up(work: Path, tokenizer: Path) -> None:
    """Let kernels be compiled, which is done once on a machine, before anything is timed."""
    small = work / "corpus-12"
    make_corpus(small, 12)
    run_tool("ours", small, work / "out-warm", tokenizer, 1, work)
    shutil.rmtree(work / "out-warm")


def run_tool(tool: str, corpus: Path, out: Path, tokenizer: Path, cores: int, work: Path) -> Measured:
    """Run one tool as a process, pinned to so many cores, from an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    script, python = ("ours.py", sys.executable) if tool == "ours" else (PEERS[tool][0], prepare_peer(tool, work))
    command = [str(python), str(HERE / "data_peers" / script), *map(str, (corpus, out, tokenizer, cores))]
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    started = time.monotonic()
    with (out / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=out,
            env=quiet(),
            preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        )
        watch = Watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.stop()
    wall_s = time.monotonic() - started
    if process.returncode:
        sys.exit(f"{tool} failed:\n{(out / 'log.txt').read_text()[-4000:]}")
    kept, tokens = read_output(tool, out / "dataset")
    recall = measure_recall(corpus, kept)
    cpu_s = max(usage.ru_utime + usage.ru_stime, watch.cpu_s)
    return Measured(wall_s, cpu_s, watch.peak_mb, watch.rss_mb, tokens, recall)


def quiet() -> dict[str, str]:
    """An environment in which no library starts threads beyond its cores or asks a network."""
    return {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "true"}


class Watch:
    """The memory of a process and all its children, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self.peak_mb = self.rss_mb = 0.0
        self._cpu_s: dict[int, float] = {}
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            own = mapped = 0.0
            try:
                for process in [self._process, *self._process.children(recursive=True)]:
                    told = Path(f"/proc/{process.pid}/status").read_text()
                    own += _read_kb(told, "RssAnon") / 1024
                    mapped += _read_kb(told, "VmRSS") / 1024
                    times = process.cpu_times()
                    self._cpu_s[process.pid] = times.user + times.system
            except (psutil.Error, OSError):
                continue
            self.peak_mb, self.rss_mb = max(self.peak_mb, own), max(self.rss_mb, mapped)

    @property
    def cpu_s(self) -> float:
        """Of all processes seen, when last looked at: nobody waits for the children of a fork server."""
        return sum(self._cpu_s.values())

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


def _read_kb(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else 0


def prepare_peer(tool: str, work: Path) -> Path:
    """The Python of a peer's own environment, made at the first run."""
    folder = work / f"venv-{tool}"
    python = folder / "bin" / "python"
    if not (folder / "done").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEERS[tool][1]], check=True)
        (folder / "done").touch()
    return python


def read_output(tool: str, folder: Path) -> tuple[set[str], int]:
    """The ids of documents of which something is left, and how many tokens were written."""
    kept: set[str] = set()
    tokens = 0
    if tool == "ours":
        for path in folder.glob("documents-*.parquet"):
            for tags in pq.read_table(path, columns=["tags"])["tags"].to_pylist():
                kept.add(dict(tags)["id"])
        files = list((folder / "data").glob("*.parquet"))
    else:
        files = list(folder.rglob("*.parquet"))
        for path in files:
            kept.update(name.split(".")[0] for name in pq.read_table(path, columns=["id"])["id"].to_pylist())
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(columns=["input_ids"]):
            tokens += len(batch.column(0).flatten())
    return kept, tokens


def measure_recall(corpus: Path, kept: set[str]) -> float:
    """Of the planted duplicates that passed the quality rules, the share of which only one is left."""
    planted = json.loads((corpus / "planted.json").read_text())
    pairs = [(one in kept) + (other in kept) for one, other, _ in planted]
    passed = [count for count in pairs if count]
    return sum(count == 1 for count in passed) / max(1, len(passed))


def measure_precision(corpus: Path, folder: Path) -> float:
    """Of what we removed as nearly the same, the share that is, by sets of shingles computed here."""
    table = pq.read_table(folder / "exclusions.parquet", columns=["id", "reason"]).to_pylist()
    pairs = [(row["id"], named[1]) for row in table if (named := _NAMED.match(row["reason"]))]
    texts = dict(_read_texts(corpus, {name for pair in pairs for name in pair}))
    alike = [jaccard(texts[one], texts[other]) for one, other in pairs]
    # What is compared there was normalised before, which may move the index by a shingle or two.
    return sum(value >= 0.79 for value in alike) / max(1, len(alike))


def _read_texts(corpus: Path, wanted: set[str]) -> Iterator[tuple[str, str]]:
    import hashlib

    for path in sorted(corpus.glob("*.jsonl.zst")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        with zstandard.ZstdDecompressor().stream_reader(path.open("rb")) as stream:
            for number, line in enumerate(stream.read().splitlines(), 1):
                if f"{digest}.{number}" in wanted:
                    yield f"{digest}.{number}", json.loads(line)["text"]


def compare(runs: dict[tuple[str, int], Measured]) -> dict[str, float]:
    """Theirs over ours, on one core; with `_2` where there were two."""
    ratios = {}
    for (tool, cores), run in runs.items():
        ours = runs.get(("ours", cores))
        if tool != "ours" and ours:
            suffix = "" if cores == 1 else f"_{cores}"
            ratios[f"{tool}_wall{suffix}"] = round(run.wall_s / ours.wall_s, 2)
            ratios[f"{tool}_cpu{suffix}"] = round(run.cpu_s / ours.cpu_s, 2)
    return ratios


def measure_large(given: argparse.Namespace, runs: dict[tuple[str, int], Measured]) -> dict[str, float]:
    """Our memory on the larger corpus, beside that on the first."""
    corpus = given.work / f"corpus-{given.large}"
    told = make_corpus(corpus, given.large)
    cores = max(given.cores)
    large = run_tool("ours", corpus, given.work / "out-large", given.tokenizer, cores, given.work)
    shutil.rmtree(given.work / "out-large")
    show("ours", cores, large, told["text_mb"])
    small = runs["ours", cores]
    return {
        "text_mb": told["text_mb"],
        "peak_mb": round(large.peak_mb),
        "peak_mb_small": round(small.peak_mb),
        "growth": round(large.peak_mb / small.peak_mb, 2),
        "wall_s": round(large.wall_s, 1),
    }


def show(tool: str, cores: int, run: Measured, text_mb: float) -> None:
    """One line of the table."""
    print(
        f"{tool:<10} {cores} core{'s' if cores > 1 else ' '}  {run.wall_s:8.1f} s wall  {run.cpu_s:8.1f} s CPU  "
        f"{text_mb / run.wall_s:6.2f} MB/s  {run.peak_mb:6.0f} MB own, {run.rss_mb:6.0f} MB with mapped files  "
        f"recall {run.recall:.3f}  {run.tokens / 1e6:.1f} M tokens",
        flush=True,
    )


if __name__ == "__main__":
    main()
