"""Serving on one core: our engine beside PEFT one request at a time, PEFT's mixed batch, transformers' batching.

    python benchmarks/serve.py                       15M and 135M, float32 and bfloat16, every contender
    python benchmarks/serve.py --quick               15M, float32, few cases (under a minute)
    python benchmarks/serve.py --contenders ours --sizes 135m --dtypes float32 --streams 32 --adapters 1 10 100

Every case is a process of its own with as many threads (one, unless told) on as many cores; bases have random weights,
adapters are rank 16 on all linear layers, prompts 32 to 96 tokens, answers 32. All contenders get the same prompts,
answer greedily and past the end token, so that all make the same tokens; question i asks adapter i modulo the number of
adapters, so a step of ours holds as many of them as it can. Ours runs as the server runs it (asyncio, streamed text);
its streams ask again as soon as they are answered. PEFT and transformers get their own best: adapters in the model's
dtype, batches whose answers end together, a cache of the right size. One request at a time is measured on few requests,
as its rate is the same for all; everything else on `streams` requests and more. Answers are compared with PEFT's.

`decode` is tokens a CPU-second of one stream without adapters, between first and last token; the roofline is how often
a second the threads can read the weights. Arrivals are Azure's conversations, lengths shrunk by 16 and quickened to
twice what the engine can do, with adapters drawn by a Zipf law.

Prints a table and, last, JSON. `ratios` are of the 135M shape in float32, where answers are proven equal (each case has
its own in `cases`): tokens a CPU-second at 32 streams and 10 adapters, ours over PEFT's; 100 adapters over 1 on the
arrivals; and the share of the roofline that one stream reaches.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from serve_material import SHAPES, Question, make_adapters, make_questions, make_serving_base, read_arrivals, to_job

HERE = Path(__file__).parent
ANSWER_TOKENS, CONTEXT_TOKENS = 32, 512
ASKED = {1: 4, 8: 24, 32: 64}  # questions to us by streams; each stream asks several
TRACED, SHRINK, OVERLOAD = 160, 1 / 16, 2.0
HEADLINE = ("135m", "float32")
MODULES = {
    "peft_sequential": "peft_sequential",
    "peft_mixed": "peft_mixed",
    "ours": "ours",
    "transformers": "transformers_batching",
}
LIMIT_S = 600.0

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """What one process measures."""

    contender: str
    size: str
    dtype: str
    streams: int
    adapters: int


class Bench:
    """Where things are, and the cores to run on."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._work: Path = given.work.resolve()
        self._threads: int = given.threads
        self._rank: int = given.rank
        self._repeats: int = given.repeats
        # Libraries are imported once; each case is a fork of a process that has nothing but them.
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["torch", "transformers"])

    def run(self, case: Case, questions: list[Question], *, arrivals: bool = False) -> Figures | str:
        """One case's figures, of the run with the most tokens a CPU-second; a failure is its last words."""
        runs = [self._run_once(case, questions, arrivals=arrivals) for _ in range(self._repeats)]
        measured = [run for run in runs if not isinstance(run, str)]
        return max(measured, key=lambda run: run["tokens_per_cpu_s"]) if measured else runs[0]

    def _run_once(self, case: Case, questions: list[Question], *, arrivals: bool) -> Figures | str:
        base = make_serving_base(self._work / f"base-{case.size}", case.size)
        folder = self._work / f"adapters-{case.size}"
        job = {
            "base": str(base),
            "dtype": case.dtype,
            "threads": self._threads,
            "streams": case.streams,
            "context_tokens": CONTEXT_TOKENS,
            "adapters": make_adapters(folder, base, case.adapters, self._rank),
            "questions": to_job(questions),
            "warm": to_job(make_questions(case.streams, case.adapters, 3, _vocabulary(case.size), seed=1)),
            "arrivals": arrivals,
        }
        return self.process(MODULES[case.contender], job)

    def process(self, module: str, job: dict[str, Any]) -> Figures | str:
        """What `measure` of a module of serve_peers gives, in a process of its own."""
        ours, theirs = self._processes.Pipe(duplex=False)
        log = self._work / f"{module}.log"
        child = self._processes.Process(target=_measure, args=(module, job, theirs, str(log)), daemon=True)
        child.start()
        theirs.close()
        found: Figures | str = f"took longer than {LIMIT_S:.0f} s"
        if ours.poll(LIMIT_S):
            try:
                found = ours.recv()
            except EOFError:
                found = "ended without a word"
            child.join(10.0)
        child.kill()
        child.join()
        return found


def _measure(module: str, job: dict[str, Any], reply: Connection, log: str) -> None:
    with Path(log).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        reply.send(importlib.import_module(f"serve_peers.{module}").measure(job))
    except Exception as error:  # noqa: BLE001 - a contender's own words are its result
        reply.send(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")


def main() -> None:
    """Run what the command line asks for."""
    given = read_arguments()
    os.environ |= {"OMP_NUM_THREADS": str(given.threads), "MKL_NUM_THREADS": str(given.threads)}
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    cores = sorted(os.sched_getaffinity(0))[-given.threads :]
    os.sched_setaffinity(0, cores)
    given.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(given)
    cases: list[Figures] = []
    arrivals: list[Figures] = []
    for size in given.sizes:
        for dtype in given.dtypes:
            cases += measure_matrix(bench, size, dtype, given)
            if "ours" in given.contenders and not given.quick:
                arrivals += measure_arrivals(bench, size, dtype, cases)
    ratios = compare(cases, arrivals, *HEADLINE)
    settings = {"threads": given.threads, "rank": given.rank, "headline": "/".join(HEADLINE)}
    print(json.dumps({"ratios": ratios, **settings, "arrivals": arrivals, "cases": cases}))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["15m", "135m"], choices=["15m", "135m"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--adapters", nargs="+", type=int, default=[0, 1, 10, 100])
    parser.add_argument("--contenders", nargs="+", default=list(MODULES), choices=list(MODULES))
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="measure each case so often, keep its fastest")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", type=Path, default=HERE.parent / ".benchmarks" / "serve")
    given = parser.parse_args()
    if given.quick:
        given.sizes, given.dtypes, given.streams, given.adapters = ["15m"], ["float32"], [1, 8], [0, 4]
    return given


def measure_matrix(bench: Bench, size: str, dtype: str, given: argparse.Namespace) -> list[Figures]:
    """Every contender at every number of streams and adapters, on one base."""
    roof = measure_roof(bench, size, dtype, given.threads)
    print(f"{size} {dtype}: memory is read at {roof['bytes_per_s'] / 1e9:.1f} GB/s, ", end="")
    print(f"the weights {roof['reads_per_s']:.1f} times a second", flush=True)
    found = []
    for adapters in given.adapters:
        reference: list[str] = []
        for case in choose_cases(size, dtype, adapters, given):
            questions = make_questions(_asked(case), adapters, ANSWER_TOKENS, _vocabulary(size))
            figures = bench.run(case, questions)
            row: Figures = {key: getattr(case, key) for key in Case.__slots__}
            if isinstance(figures, str):
                row["failed"] = figures
            else:
                answers = figures.pop("answers")
                if not reference and case.contender == "peft_sequential":
                    reference = answers
                row |= figures | {"same": count_same(answers, reference)}
                if case.contender == "peft_mixed":  # agrees with the former, or is shown not to, and answers more
                    reference += answers[len(reference) :]
                if case.streams == 1 and adapters == 0 and case.contender == "ours":
                    row["roofline"] = figures["decode_per_cpu_s"] / roof["reads_per_s"]
            found.append(row)
            show(row)
    return found


def choose_cases(size: str, dtype: str, adapters: int, given: argparse.Namespace) -> list[Case]:
    """The reference first. A peer that needs minutes to load 100 adapters loads them for 32 streams only."""
    found = []
    if "peft_sequential" in given.contenders:
        found.append(Case("peft_sequential", size, dtype, 1, adapters))
    for streams in given.streams:
        for contender in given.contenders:
            alone = contender == "peft_sequential"
            base_only = contender == "transformers" and adapters > 0
            too_many = contender == "peft_mixed" and adapters > 10 and streams < max(given.streams)
            if not (alone or base_only or too_many):
                found.append(Case(contender, size, dtype, streams, adapters))
    return found


def _asked(case: Case) -> int:
    if case.contender == "ours":
        return ASKED.get(case.streams, 2 * case.streams)
    return 6 if case.contender == "peft_sequential" else max(2, case.streams)


def measure_roof(bench: Bench, size: str, dtype: str, threads: int) -> Figures:
    """Bytes a second the threads read, and how often a second that is all weights (the head's are the embedding)."""
    measured = bench.process("bandwidth", {"threads": threads})
    if isinstance(measured, str):
        sys.exit(measured)
    shape = SHAPES[size]
    head = shape["hidden_size"] // shape["num_attention_heads"]
    attention = (2 * shape["num_attention_heads"] + 2 * shape["num_key_value_heads"]) * head
    layer = shape["hidden_size"] * (attention + 3 * shape["intermediate_size"])
    weights = shape["num_hidden_layers"] * layer + shape["hidden_size"] * shape["vocab_size"]
    size_bytes = weights * {"float32": 4, "bfloat16": 2}[dtype]
    return measured | {"reads_per_s": measured["bytes_per_s"] / size_bytes}


def measure_arrivals(bench: Bench, size: str, dtype: str, cases: list[Figures]) -> list[Figures]:
    """Real arrivals to one adapter and to a hundred, at twice the pace of our engine in the cases measured before."""
    rates = [row["tokens_per_cpu_s"] for row in cases if _is(row, "ours", size, dtype, 32) and "failed" not in row]
    if not rates:
        return []
    found = []
    for adapters in (1, 100):
        per_s = OVERLOAD * max(rates) / ANSWER_TOKENS
        questions = read_arrivals(TRACED, adapters, CONTEXT_TOKENS, per_s, _vocabulary(size), SHRINK)
        figures = bench.run(Case("ours", size, dtype, 32, adapters), questions, arrivals=True)
        row: Figures = {"size": size, "dtype": dtype, "adapters": adapters, "per_s": per_s}
        row |= {"asked": len({question.adapter for question in questions})}
        row |= {"failed": figures} if isinstance(figures, str) else figures
        row.pop("answers", None)
        found.append(row)
        print(f"  arrivals         {adapters:4} adapters, {row['asked']} of them asked: {_told(row)}", flush=True)
    return found


def compare(cases: list[Figures], arrivals: list[Figures], size: str, dtype: str) -> dict[str, float | None]:
    """The headline's ratios; None where something was not run."""

    def rate(contender: str, streams: int, adapters: int) -> float | None:
        for row in cases:
            if _is(row, contender, size, dtype, streams) and row["adapters"] == adapters:
                found: float | None = row.get("tokens_per_cpu_s")
                return found
        return None

    ours = rate("ours", 32, 10)
    shares = [row["roofline"] for row in cases if row["size"] == size and row["dtype"] == dtype and "roofline" in row]
    traced = {
        row["adapters"]: row.get("tokens_per_cpu_s")
        for row in arrivals
        if row["size"] == size and row["dtype"] == dtype
    }
    return {
        "peft_sequential": _over(ours, rate("peft_sequential", 1, 10)),
        "peft_mixed": _over(ours, rate("peft_mixed", 32, 10)),
        "transformers_base": _over(rate("ours", 32, 0), rate("transformers", 32, 0)),
        "adapters_100_over_1": _over(traced.get(100), traced.get(1)),
        "adapters_100_over_1_steady": _over(rate("ours", 32, 100), rate("ours", 32, 1)),
        "roofline_1": round(shares[0], 3) if shares else None,
    }


def _over(one: float | None, other: float | None) -> float | None:
    return round(one / other, 3) if one and other else None


def _is(row: Figures, contender: str, size: str, dtype: str, streams: int) -> bool:
    return bool((contender, size, dtype, streams) == tuple(row[k] for k in ("contender", "size", "dtype", "streams")))


def show(row: Figures) -> None:
    """One line of the table."""
    said = f"  {row['contender']:<16} {row['adapters']:4} adapters {row['streams']:3} streams: {_told(row)}"
    if "same" in row:
        said += f"  {row['same']} as PEFT's"
    if "roofline" in row:
        said += f"  {row['decode_per_cpu_s']:.1f} decoded a CPU-second, {row['roofline']:.0%} of the roofline"
    print(said, flush=True)


def _told(row: Figures) -> str:
    if "failed" in row:
        return f"did not run: {row['failed']}"
    first, gap = row["ttft_ms"], row["itl_ms"]
    return (
        f"{row['tokens_per_cpu_s']:7.1f} tokens/CPU-s  first {first['p50']:6.0f} / {first['p99']:6.0f} ms  "
        f"next {gap['p50']:5.0f} / {gap['p99']:5.0f} ms  {row['peak_mb']:5.0f} MB"
    )


def count_same(answers: list[str], reference: list[str]) -> str:
    """How many answers are PEFT's, of those it gave."""
    compared = list(zip(answers, reference, strict=False))
    return f"{sum(ours == theirs for ours, theirs in compared)}/{len(compared)}"


def _vocabulary(size: str) -> int:
    return SHAPES[size]["vocab_size"]


if __name__ == "__main__":
    main()
