"""LoRA fine-tuning of an 8B Llama on one GPU, beside TRL on the same card: tokens a second, and share of its peak.

    python benchmarks/train_gpu.py                     ours and TRL, 4,000 documents
    python benchmarks/train_gpu.py --documents 1000    a quick look
    python benchmarks/train_gpu.py --size 135m         a small base, to see that it runs

The shape of Llama 3.1 8B with random weights in bfloat16, LoRA rank 16 on all linear layers, the chats of
benchmarks/train.py (train_material.py), packed without padding, one pass after a warm-up. Both contenders are swept
over a few sizes of pack on a part of the documents and measured with the best. TRL packs (best fit), computes attention
by FlashAttention where it is installed, in bfloat16, without gradient checkpointing where that fits.

MFU is the arithmetic that must be done a second over the card's dense bfloat16 peak: for each token twice the
parameters forward and twice back to the inputs (frozen weights get no gradient), so 4 N; recomputation, adapters and
attention count as nothing. Needs a CUDA device and 20 GB of disk; says so where there is none. Prints JSON last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from data import quiet
from train import BEST, BF16, CONTENDERS, prepare
from train_material import SHAPES, Writer, make_base, make_documents, make_tokenizer

HERE = Path(__file__).parent
PEAK_TFLOPS = {
    "H200": 989,
    "H100": 989,
    "B200": 2250,
    "A100": 312,
    "L40S": 362,
    "RTX 4090": 165,
}  # dense bf16, vendor's
OURS = [{"pack_tokens": tokens} for tokens in (8192, 16384, 32768)]
PACKS = [(8192, 1), (8192, 2), (8192, 4)]  # tokens of a pack, packs of a batch


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender's pass."""

    tokens_per_s: float
    mfu: float | None  # None: the card's peak is not known here
    wall_s: float
    gpu_peak_mb: float
    loss: float
    loss_end: float
    setting: dict[str, Any]
    versions: dict[str, str]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--size", default="8b", choices=list(SHAPES))
    parser.add_argument("--contenders", nargs="+", default=["ours", "trl"], choices=["ours", "trl"])
    parser.add_argument("--work", type=Path, default=HERE.parent / ".benchmarks" / "train")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("train_gpu.py measures on an NVIDIA GPU, and torch finds none here; benchmarks/train.py runs on a CPU")
    card = torch.cuda.get_device_name()
    work: Path = given.work.resolve()
    base, documents, tokens = make_material(work, given.size, given.documents)
    _, sample, sample_tokens = make_material(work, given.size, max(64, given.documents // 10))
    print(
        f"{card}: {given.documents} documents, {tokens} tokens, {count_parameters(given.size) / 1e9:.2f}B", flush=True
    )
    found: dict[str, Measured] = {}
    for name in given.contenders:
        settings = OURS if name == "ours" else list_trl_settings()
        tried = [(run(name, base, sample, sample_tokens, setting, given.size, work), setting) for setting in settings]
        ran = [(one.tokens_per_s, index) for index, (one, _) in enumerate(tried) if isinstance(one, Measured)]
        if not ran:
            print(f"  {name} did not run: {tried[0][0]}", flush=True)
            continue
        measured = run(name, base, documents, tokens, tried[max(ran)[1]][1], given.size, work)
        if isinstance(measured, Measured):
            found[name] = measured
            share = "" if measured.mfu is None else f", {measured.mfu:.1%} of the card's peak"
            print(
                f"  {name:<5} {measured.tokens_per_s:8.0f} tokens/s{share}, {measured.gpu_peak_mb:.0f} MB", flush=True
            )
    ratio = found["ours"].tokens_per_s / found["trl"].tokens_per_s if len(found) == 2 else None
    figures = {name: asdict(one) for name, one in found.items()}
    today = time.strftime("%Y-%m-%d")
    print(json.dumps({"card": card, "date": today, "documents": given.documents, "trl_ratio": ratio, "runs": figures}))


def make_material(work: Path, size: str, count: int) -> tuple[Path, Path, int]:
    """The base, so many documents as JSON lines, and their tokens."""
    writer = Writer()
    tokenizer = make_tokenizer(work / "tokenizer", writer)
    base = make_base(work / f"base-{size}", size, work / "tokenizer")
    documents = make_documents(count, tokenizer, writer)
    path = work / f"documents-{count}.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return base, path, sum(document["tokens"] for document in documents)


def list_trl_settings() -> list[dict[str, Any]]:
    """TRL's options worth trying: without checkpointing where it fits, and with."""
    attention = "flash_attention_2" if find_spec("flash_attn") else "sdpa"
    weights = {"model_init_kwargs": {**BF16["model_init_kwargs"], "attn_implementation": attention}}
    packed = {**BEST, **weights, "packing": True}
    sizes = [{"max_length": tokens, "per_device_train_batch_size": packs} for tokens, packs in PACKS]
    return [packed | size | {"gradient_checkpointing": again} for again in (False, True) for size in sizes]


def run(
    name: str, base: Path, documents: Path, tokens: int, setting: dict[str, Any], size: str, work: Path
) -> Measured | str:
    """Measure one contender with one setting, as a process of its own; a failure is its last words."""
    contender = CONTENDERS["ours" if name == "ours" else "trl_best"]
    python: Path | str = sys.executable
    if contender.needs:
        python = prepare(contender, work)
        if isinstance(python, str):
            return python
    out = work / f"out-gpu-{name}"
    out.mkdir(parents=True, exist_ok=True)
    job = {"base": str(base), "documents": str(documents), "out": str(out), "options": setting, "alike": 0}
    (out / "job.json").write_text(json.dumps(job))
    (out / "figures.json").unlink(missing_ok=True)
    with (out / "log.txt").open("wb") as log:
        command = [str(python), str(HERE / "train_peers" / contender.script), str(out / "job.json")]
        code = subprocess.run(command, stdout=log, stderr=log, cwd=out, env=quiet(), check=False).returncode
    if code:
        return ((out / "log.txt").read_text(errors="replace").strip().splitlines() or [f"exit code {code}"])[-1]
    figures = json.loads((out / "figures.json").read_text())
    speed = tokens / figures["wall_s"]
    peak = next((tflops for part, tflops in PEAK_TFLOPS.items() if part in torch.cuda.get_device_name()), None)
    mfu = None if peak is None else speed * 4 * count_parameters(size) / (peak * 1e12)
    losses = figures["losses"]
    return Measured(
        speed, mfu, figures["wall_s"], figures["gpu_peak_mb"], losses[0], losses[-1], setting, figures["versions"]
    )


def count_parameters(size: str) -> int:
    """Of a shape of `SHAPES`; those a token is multiplied by, so the embedding counts once, as the head."""
    shape = SHAPES[size]
    width, hidden = shape["hidden_size"], shape["intermediate_size"]
    head = width // shape["num_attention_heads"]
    attention = width * head * 2 * (shape["num_attention_heads"] + shape["num_key_value_heads"])
    return shape["num_hidden_layers"] * (attention + 3 * width * hidden) + shape["vocab_size"] * width


if __name__ == "__main__":
    main()
