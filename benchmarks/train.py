"""LoRA fine-tuning on one core, beside TRL, transformers' Trainer with PEFT, and Unsloth: tokens a CPU-second, memory.

    python benchmarks/train.py                       135M and 15M, every contender
    python benchmarks/train.py --quick               135M, few documents (minutes)
    python benchmarks/train.py --sweep               also choose the peers' settings anew, by trying each
    python benchmarks/train.py --contenders ours     ours alone

Every contender trains the same base (random weights, SmolLM2's shape) on the same chats with the same LoRA (rank 16 on
all linear layers, learning rate 2e-4, about 1,000 tokens an update) as a process of its own on one core, one after
another. Measured is one pass over all documents, after a warm-up, without imports, loading and tokenizing. Tokens are
the documents' own: padding counts as nothing. Whoever pads gets documents of like length in a batch. The adapters are
then scored on the same documents by PEFT, to see that all of them learnt. Peers live in environments of their own, made
at the first run, on the torch and transformers of the one this runs in (Unsloth: its own transformers).

Prints a table and, last, JSON: `ratios` are tokens a CPU-second, ours over theirs, at 135M, and `memory_trl_best` our
peak over theirs (the whole process, its libraries included; `memory_own_trl_best` without what imports took). TRL,
Trainer and Unsloth have the fastest setting that a sweep found; `unsloth_default` is Unsloth as its notebooks have it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data import Watch, quiet
from train_material import Writer, make_base, make_documents, make_tokenizer

HERE = Path(__file__).parent
TRL = ["trl==1.16.0", "datasets==5.2.0"]
UNSLOTH = [
    "unsloth==2026.10.9", "unsloth_zoo==2026.10.9", "transformers==5.17.0", "trl==1.15.0", "datasets==4.8.5",
    "huggingface-hub==1.33.0", "triton==3.9.0", "bitsandbytes==0.50.2", "torchao==0.18.0", "cut-cross-entropy==25.1.1",
    "diffusers==0.42.1", "sentencepiece==0.2.3", "hf_transfer==0.1.9", "tyro==1.0.17", "docstring_parser==0.18.0",
    "typeguard==4.6.0", "shtab==1.13.0", "json5==0.17.3", "nest-asyncio==1.6.0", "structlog==26.1.0", "einops==0.8.2",
    "importlib_metadata==10.2.0", "zipp==4.1.2",
]  # fmt: skip
BEST = {"assistant_only_loss": True, "gradient_checkpointing": False}
BF16 = {"model_init_kwargs": {"dtype": "bfloat16"}}


def _packed(tokens: int, **more: Any) -> dict[str, Any]:
    size = {"max_length": tokens, "per_device_train_batch_size": 1}
    return {**BEST, **BF16, "packing": True, **size, **more}


def _padded(size: int) -> dict[str, Any]:
    return {"alike": size, "per_device_train_batch_size": size, "train_sampling_strategy": "sequential"}


def _summed(batches: int) -> dict[str, Any]:
    """Small batches whose gradients make one update: less padding, less memory."""
    return {"gradient_accumulation_steps": batches}


# What Unsloth's own notebooks set.
NOTEBOOK = {**BEST, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "checkpointing": "unsloth"}


@dataclass(frozen=True, slots=True)
class Contender:
    """A script of train_peers, the environment it needs, and the settings to choose from, the fastest first."""

    script: str
    needs: tuple[str, ...] = ()
    settings: tuple[dict[str, Any], ...] = ({},)


CONTENDERS = {
    "ours": Contender("ours.py"),
    "trl_best": Contender(
        "trl_sft.py",
        tuple(TRL),
        (
            {**BEST, **BF16, **_padded(1), **_summed(8)},
            _packed(1024),
            _packed(1024, bf16=False),
            _packed(2048),
        ),
    ),
    "unsloth": Contender(
        "unsloth_sft.py",
        tuple(UNSLOTH),
        (
            {**BEST, **_padded(1), **_summed(8), "compile": True},
            {**BEST, **_padded(2), **_summed(4), "compile": True},
            {**BEST, **_padded(4), **_summed(2), "compile": True},
            {**BEST, **_padded(4), **_summed(2)},
        ),
    ),
    "unsloth_default": Contender("unsloth_sft.py", tuple(UNSLOTH), ({**NOTEBOOK},)),
    "hf_peft": Contender(
        "hf_peft.py",
        tuple(TRL),
        tuple({"bf16": True, **_padded(size), **_summed(8 // size)} for size in (1, 2, 8)),
    ),
    "trl_default": Contender("trl_sft.py", tuple(TRL)),
}


@dataclass(slots=True)
class Measured:
    """One contender's pass over the documents."""

    tokens_per_cpu_s: float
    cpu_s: float
    wall_s: float
    peak_mb: float  # the whole process, mapped files included
    own_mb: float  # anonymous memory beyond what it had after its imports
    loss: float  # of the first tenth of its steps, on its own batches
    loss_end: float  # of the last tenth
    setting: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    passes: int = 1  # over the documents in all, the measured one last; who needs more than a step to warm up has two
    scored: float | None = None  # PEFT's loss of its adapter on the assistant's tokens


@dataclass(frozen=True, slots=True)
class Bench:
    """Where things are, and the core to run on."""

    work: Path
    core: int

    def run(
        self, name: str, size: str, count: int, documents: Path, tokens: int, setting: dict[str, Any]
    ) -> Measured | str:
        """Measure one contender with one setting; a failure is its last words."""
        contender = CONTENDERS[name]
        python = sys.executable
        if contender.needs:
            prepared = prepare(contender, self.work)
            if isinstance(prepared, str):
                return prepared
            python = str(prepared)
        out = self.work / f"out-{name}-{size}"
        out.mkdir(parents=True, exist_ok=True)
        options = {key: value for key, value in setting.items() if key != "alike"}
        job = {
            "base": str(self.work / f"base-{size}"),
            "documents": str(documents),
            "out": str(out),
            "options": options,
            "alike": setting.get("alike", 0),
        }
        failed, peak_anon_mb = self.process([python, str(HERE / "train_peers" / contender.script)], job, out)
        if failed:
            return failed
        figures = json.loads((out / "figures.json").read_text())
        losses = figures["losses"]
        few = max(1, len(losses) // 10)
        return Measured(
            tokens / figures["cpu_s"],
            figures["cpu_s"],
            figures["wall_s"],
            figures["peak_mb"],
            peak_anon_mb - figures["imports_anon_mb"],
            sum(losses[:few]) / few,
            sum(losses[-few:]) / few,
            setting,
            figures["versions"],
            figures["passes"],
        )

    def process(self, command: list[str], job: dict[str, Any], out: Path) -> tuple[str, float]:
        """Run a script on its job, pinned to our core: what it said if it failed, and its peak of anonymous memory."""
        (out / "job.json").write_text(json.dumps(job))
        (out / "figures.json").unlink(missing_ok=True)
        with (out / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [*command, str(out / "job.json")],
                stdout=log,
                stderr=log,
                cwd=out,
                env=quiet() | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                preexec_fn=lambda: os.sched_setaffinity(0, {self.core}),
            )
            watch = Watch(process.pid)
            code = process.wait()
            watch.stop()
        last = (out / "log.txt").read_text(errors="replace").strip().splitlines()[-1:] or [f"exit code {code}"]
        return (last[0] if code else ""), watch.peak_mb


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=128)
    parser.add_argument("--sizes", nargs="+", default=["135m", "15m"], choices=["135m", "15m"])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, default=HERE.parent / ".benchmarks" / "train")
    given = parser.parse_args()
    if given.quick:
        given.documents, given.sizes = 16, given.sizes[:1]
    bench = Bench(given.work.resolve(), given.core)
    result: dict[str, Any] = {"documents": given.documents, "sizes": {}}
    for size in given.sizes:
        result["sizes"][size] = measure_size(bench, size, given)
    print(json.dumps({"ratios": compare(result["sizes"].get("135m", {})), **result}))


def measure_size(bench: Bench, size: str, given: argparse.Namespace) -> dict[str, Any]:
    """Every contender on one base."""
    documents, tokens = make_material(bench.work, size, given.documents)
    sample, sample_tokens = make_material(bench.work, size, 24)
    small, small_tokens = make_material(bench.work, size, 2)
    if "ours" in given.contenders:
        bench.run("ours", size, 2, small, small_tokens, {})  # kernels are compiled once on a machine
    ceiling = measure_ceiling(bench, size)
    print(f"{size}: {given.documents} documents, {tokens} tokens; bf16 products alone would do", end=" ")
    print(f"{ceiling['tokens_per_cpu_s']:.0f} tokens a CPU-second ({ceiling['gflops']:.0f} GFLOP/s)", flush=True)
    found: dict[str, Measured] = {}
    failures: dict[str, str] = {}
    for name in given.contenders:
        settings = CONTENDERS[name].settings
        if len(settings) > 1 and given.sweep:
            settings = (sweep(bench, name, size, sample, sample_tokens),)
        run = bench.run(name, size, given.documents, documents, tokens, settings[0])
        if isinstance(run, str):
            failures[name] = run
            print(f"  {name:<12} did not run: {run}", flush=True)
            continue
        found[name] = run
        show(name, run)
    score(bench, size, documents, found)
    ceiling_after = measure_ceiling(bench, size)
    ceiling = max(ceiling, ceiling_after, key=lambda one: one["tokens_per_cpu_s"])
    if "ours" in found:
        ceiling["our_share"] = round(found["ours"].tokens_per_cpu_s / ceiling["tokens_per_cpu_s"], 3)
        print(f"  ours is {ceiling['our_share']:.0%} of what the products alone would allow", flush=True)
    runs = {name: {key: _rounded(getattr(run, key)) for key in Measured.__slots__} for name, run in found.items()}
    return {"tokens": tokens, "ceiling": ceiling, "runs": runs, "failures": failures}


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def make_material(work: Path, size: str, count: int) -> tuple[Path, int]:
    """So many documents as JSON lines, with tokenizer and base beside them; and their tokens."""
    writer = Writer()
    tokenizer = make_tokenizer(work / "tokenizer", writer)
    make_base(work / f"base-{size}", size, work / "tokenizer")
    documents = make_documents(count, tokenizer, writer)
    path = work / f"documents-{count}.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path, sum(document["tokens"] for document in documents)


def sweep(bench: Bench, name: str, size: str, documents: Path, tokens: int) -> dict[str, Any]:
    """The fastest of a contender's settings on few documents."""
    best: tuple[float, dict[str, Any]] = (0.0, CONTENDERS[name].settings[0])
    for setting in CONTENDERS[name].settings:
        run = bench.run(name, size, 24, documents, tokens, setting)
        said = run if isinstance(run, str) else f"{run.tokens_per_cpu_s:6.1f} tokens a CPU-second"
        print(f"    {name} {json.dumps(setting)}: {said}", flush=True)
        if not isinstance(run, str) and run.tokens_per_cpu_s > best[0]:
            best = (run.tokens_per_cpu_s, setting)
    return best[1]


def measure_ceiling(bench: Bench, size: str) -> dict[str, Any]:
    """How fast the matrix products of the base alone would go, forward and backward."""
    out = bench.work / "out-ceiling"
    out.mkdir(parents=True, exist_ok=True)
    failed, _ = bench.process(
        [sys.executable, str(HERE / "train_peers" / "ceiling.py")],
        {"base": str(bench.work / f"base-{size}"), "out": str(out)},
        out,
    )
    if failed:
        sys.exit(failed)
    ceiling: dict[str, Any] = json.loads((out / "figures.json").read_text())
    return ceiling


def score(bench: Bench, size: str, documents: Path, found: dict[str, Measured]) -> None:
    """Let PEFT say what every adapter's loss is on the same documents."""
    out = bench.work / "out-score"
    out.mkdir(parents=True, exist_ok=True)
    adapters = {name: str(bench.work / f"out-{name}-{size}") for name in found}
    job = {"base": str(bench.work / f"base-{size}"), "documents": str(documents), "out": str(out), "adapters": adapters}
    failed, _ = bench.process([sys.executable, str(HERE / "train_peers" / "score.py")], job, out)
    if failed:
        print(f"  not scored: {failed}", flush=True)
        return
    losses = json.loads((out / "figures.json").read_text())
    for name, run in found.items():
        run.scored = losses[name]
    said = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
    print(f"  loss on the assistant's tokens, by PEFT in float32: {said}", flush=True)


def prepare(contender: Contender, work: Path) -> Path | str:
    """The Python of a peer's own environment, made at the first run; or why it could not be made."""
    name = contender.script.split("_")[0] if "unsloth" in contender.script else "trl"
    folder = work.parent / f"venv-{name}"
    python = folder / "bin" / "python"
    if (folder / "done").is_file() and (folder / "done").read_text() == repr(contender.needs):
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    # What is already here (torch above all) is seen from there; what is installed there comes first.
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    alone = ["--no-deps"] if name == "unsloth" else []  # its torchvision and xformers want CUDA's torch
    command = [str(python), "-m", "pip", "install", "--quiet", *alone, *contender.needs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"cannot be installed: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}"
    (folder / "done").write_text(repr(contender.needs))
    return python


def compare(size: dict[str, Any]) -> dict[str, float | None]:
    """Tokens a CPU-second, ours over theirs; memory, ours over theirs. None where one did not run."""
    runs = size.get("runs", {})
    ratios: dict[str, float | None] = {}

    def ratio(name: str, key: str) -> float | None:
        ours, theirs = runs.get("ours"), runs.get(name)
        return round(ours[key] / theirs[key], 3) if ours and theirs else None

    for name in ("trl_default", "trl_best", "hf_peft", "unsloth", "unsloth_default"):
        ratios[name] = ratio(name, "tokens_per_cpu_s")
    ratios["memory_trl_best"] = ratio("trl_best", "peak_mb")
    ratios["memory_own_trl_best"] = ratio("trl_best", "own_mb")
    return ratios


def show(name: str, run: Measured) -> None:
    """One line of the table."""
    print(
        f"  {name:<12} {run.tokens_per_cpu_s:7.1f} tokens/CPU-s  {run.cpu_s:7.1f} s CPU {run.wall_s:7.1f} s wall  "
        f"{run.peak_mb:6.0f} MB at its peak, {run.own_mb:6.0f} beyond its imports  "
        f"loss {run.loss:.3f} -> {run.loss_end:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
