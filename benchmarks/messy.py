"""A million rows of JSON lines with every kind of trouble in them: are all found, how fast, in how much memory?

    python benchmarks/messy.py [--rows 1000000] [--long 50000000] [--workdir FOLDER]

Writes the file (seeded), reads it as a build would with the default policies, looks for ids that rows share, compares
what was reported with what was planted, and shows the report a person gets. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pyarrow as pa

from espalier.data.clean.ids import Ids, IdsSpec
from espalier.data.flow.batch import SCHEMA
from espalier.data.readers.problem import Problem, Tally
from espalier.data.readers.reading import read_source
from espalier.data.readers.source import SourceFile, hash_file
from espalier.data.readers.spec import SourceSpec
from espalier.testing.messy import Planted, write_messy

SHARD_ROWS = 32_768


class Shards:
    """Batches on disk, mapped."""

    def __init__(self, path: Path) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))

    def __len__(self) -> int:
        return int(self._file.num_record_batches)

    def __getitem__(self, shard: int) -> pa.RecordBatch:
        return self._file.get_batch(shard)


def main() -> None:
    """Write, read, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--long", type=int, default=50_000_000, help="bytes of the one line that is too long")
    parser.add_argument("--workdir", type=Path, default=None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.workdir) as folder:
        path = Path(folder, "messy.jsonl")
        planted = write_messy(path, asked.rows, long_line_bytes=asked.long)
        print(f"{planted.size_bytes / 1e6:.0f} MB written")
        result = measure(path, planted, Path(folder))
    print(json.dumps(result))


def measure(path: Path, planted: Planted, folder: Path) -> dict[str, object]:
    """Read the file and judge what is found against what was planted."""
    source = SourceFile(path, path.name, hash_file(path))
    options = SourceSpec(text="body", id="id").options()
    problems: list[Problem] = []
    rows = 0
    began, cpu = time.perf_counter(), time.process_time()
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for item in read_source(source, options, _Bar()):
            if isinstance(item, Problem):
                problems.append(item)
            else:
                rows += len(item)
                writer.write_batch(item)
    read_s, read_cpu_s = time.perf_counter() - began, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shards, step = Shards(folder / "rows.arrow"), Ids(IdsSpec())
    began = time.perf_counter()
    sketches = [step.sketch(shards[number]) for number in range(len(shards))]
    repaired = 0
    for number, decision in enumerate(step.decide(sketches, shards, folder, map)):  # type: ignore[arg-type]
        outcome = step.apply_decision(shards[number], decision)
        problems += [Problem.from_json(told) for told in outcome.problems]
        repaired += outcome.counts.get("duplicate id repaired", 0)
    ids_s = time.perf_counter() - began
    tally = Tally()
    for problem in problems:
        tally.add(problem)
    print("\n".join(tally.lines()))
    missed, false = compare(planted, problems)
    return {
        "rows": rows,
        "rows_expected": planted.rows,
        "mb": round(planted.size_bytes / 1e6, 1),
        "read_s": round(read_s, 2),
        "read_mb_per_s": round(planted.size_bytes / 1e6 / read_s, 1),
        "read_cpu_s": round(read_cpu_s, 2),
        "ids_s": round(ids_s, 2),
        "read_peak_mb": round(peak_mb, 1),
        "problems": {
            kind: sum(p.rows for p in problems if p.kind == kind) for kind in sorted({p.kind for p in problems})
        },
        "missed": missed,
        "false": false,
    }


def compare(planted: Planted, problems: list[Problem]) -> tuple[int, int]:
    """How many planted problems were not reported on their line, and how many reports have nothing planted there."""
    found: dict[str, set[int]] = defaultdict(set)
    for problem in problems:
        found[problem.kind].add(problem.line)
    # A column that appears late is one kind with a column that changes its type; a block's changes are reported on the
    # first line of them, with their number.
    wanted = {kind: set(lines) for kind, lines in planted.lines.items()}
    wanted["mixed_schema"] |= wanted.pop("late_column")
    wanted["crlf"] = {planted.crlf_first} if planted.crlf_lines else set()
    told_rows = sum(problem.rows for problem in problems if problem.kind == "mixed_schema")
    missed = sum(len(lines - found[kind]) for kind, lines in wanted.items() if kind != "mixed_schema")
    missed += max(0, len(wanted["mixed_schema"]) - told_rows)
    return missed, sum(len(lines - wanted.get(kind, set())) for kind, lines in found.items())


class _Bar:
    """Progress with the time left, on a terminal only."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, done_bytes: int, all_bytes: int, rows: int) -> None:
        if not sys.stderr.isatty():
            return
        left_s = (time.monotonic() - self._began) * (all_bytes - done_bytes) / max(done_bytes, 1)
        share = done_bytes / max(all_bytes, 1)
        print(f"\r{'#' * int(40 * share):40} {share:4.0%} {rows:,} rows, {left_s:.0f} s left ", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
