"""The fastest the base's matrix products alone could go on this core, which nobody reaches.

Forward, and backward to the inputs (frozen weights get no gradient), in bfloat16 with 1,024 tokens at once and the
head for half of them. No attention, no norms, no adapters, no loss.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from meter import pin_threads

pin_threads()

import torch  # noqa: E402

TOKENS, LOSS_TOKENS = 1024, 512


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    config = json.loads(Path(job["base"], "config.json").read_text())
    width, hidden = config["hidden_size"], config["intermediate_size"]
    head = width // config["num_attention_heads"]
    qkv = head * (config["num_attention_heads"] + 2 * config["num_key_value_heads"])
    layer = [(TOKENS, width, qkv), (TOKENS, width, width), (TOKENS, width, 2 * hidden), (TOKENS, hidden, width)]
    last = (LOSS_TOKENS, width, config["vocab_size"])
    layers = config["num_hidden_layers"]
    seconds = layers * sum(map(measure, layer)) + measure(last)
    flops = 4 * (layers * sum(t * m * n for t, m, n in layer) + LOSS_TOKENS * width * config["vocab_size"])
    figures = {"tokens_per_cpu_s": TOKENS / seconds, "gflops": flops / seconds / 1e9}
    Path(job["out"], "figures.json").write_text(json.dumps(figures))


def measure(shape: tuple[int, int, int]) -> float:
    """CPU-seconds of y = x w' and dx = dy w, the best of several tries."""
    tokens, inner, outer = shape
    x = torch.randn(tokens, inner).bfloat16()
    w = torch.randn(outer, inner).bfloat16()
    y = torch.empty(tokens, outer, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(8):
        start = time.process_time()
        torch.mm(x, w.t(), out=y)
        torch.mm(y, w, out=x)
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    main()
