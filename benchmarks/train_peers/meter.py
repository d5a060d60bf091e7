"""What every contender of benchmarks/train.py measures alike, in its own process: CPU time, memory, losses.

A contender makes a Meter first of all, calls `imported` when its libraries are there, trains once to warm up, then
once over all documents between `begin` and `end`, and reports. Knows no trainer.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def read_mb(name: str) -> float:
    """A line of this process's status: RssAnon (memory of its own), VmHWM (peak, with mapped files)."""
    found = re.search(rf"^{name}:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


class Meter:
    """One contender's figures."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.losses: list[float] = []
        self.tokens = 0  # positions computed, padding included, where the contender can tell
        self.imports_mb = self.imports_anon_mb = self.cpu_s = self.wall_s = 0.0

    def imported(self) -> None:
        """Everything is imported and nothing loaded."""
        self.imports_mb, self.imports_anon_mb = read_mb("VmRSS"), read_mb("RssAnon")

    def begin(self) -> None:
        self.losses.clear()
        self.tokens = 0
        wait_for_gpu()
        self._cpu_start_s, self._wall_start_s = time.process_time(), time.monotonic()

    def end(self) -> None:
        wait_for_gpu()
        self.cpu_s = time.process_time() - self._cpu_start_s
        self.wall_s = time.monotonic() - self._wall_start_s

    def report(self, **more: Any) -> None:
        """Write the figures where the benchmark looks for them; memory is the peak of the whole process."""
        figures = {
            "cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
            "peak_mb": read_mb("VmHWM"),
            "imports_mb": self.imports_mb,
            "imports_anon_mb": self.imports_anon_mb,
            "steps": len(self.losses),
            "losses": self.losses,
            "passes": 1,
            "computed_tokens": self.tokens,
            "gpu_peak_mb": read_gpu_peak_mb(),
            "versions": find_versions(),
            **more,
        }
        Path(self.job["out"], "figures.json").write_text(json.dumps(figures))


def read_documents(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The documents of the run, chats as `messages`; where the job has `alike`, ordered so that batches of that many
    hold documents of like length (what a trainer's own sampler does on large data, and cannot on little)."""
    documents = [json.loads(line) for line in Path(job["documents"]).read_text().splitlines()]
    size = job.get("alike", 0)
    if not size:
        return documents
    documents.sort(key=lambda document: document["tokens"])
    batches = [documents[start : start + size] for start in range(0, len(documents), size)]
    random.Random(0).shuffle(batches)
    return [document for batch in batches for document in batch]


def wait_for_gpu() -> None:
    """Until what was asked of it is done, where there is one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def read_gpu_peak_mb() -> float:
    """The most memory tensors took on the GPU; 0 where there is none."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() / 2**20 if torch is not None and torch.cuda.is_available() else 0.0


def find_versions() -> dict[str, str]:
    """Of the libraries that matter, as far as this process has them loaded."""
    names = ("torch", "transformers", "peft", "trl", "unsloth")
    return {name: version(name) for name in names if name in sys.modules}


def pin_threads() -> None:
    """One thread, as the process has one core; before torch is imported."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


LORA = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
