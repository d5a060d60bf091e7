"""PEFT for benchmarks/serve.py, batches that mix adapters: left-padded, `generate(adapter_names=...)`.

Without adapters it is transformers' own batch. A batch ends when all its answers do; here all are of one length.
"""

from __future__ import annotations

from typing import Any

import torch

from serve_peers.generation import Clock, attach, encode, load_model, name_of, tokenizer_of
from serve_peers.meter import Meter

PAD = 0


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Answer the job's questions in batches of `streams`."""
    model, tokenizer = attach(load_model(job), job), tokenizer_of(job)
    meter = Meter(job)
    for one in (Meter({"questions": job["warm"][: job["streams"]]}), meter):
        one.begin()
        for start in range(0, len(one.questions), job["streams"]):
            numbers = list(range(start, min(start + job["streams"], len(one.questions))))
            questions = [one.questions[number] for number in numbers]
            for number in numbers:
                one.ask(number)
            prompts = [encode(tokenizer, question) for question in questions]
            longest = max(map(len, prompts))
            ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
            mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
            names = [name_of(question["adapter"]) for question in questions]
            with torch.inference_mode():
                found = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=questions[0]["tokens"],
                    streamer=Clock(one, numbers),
                    **({"adapter_names": names} if job["adapters"] else {}),
                )
            for number, row in zip(numbers, found[:, longest:].tolist(), strict=True):
                one.answers[number].text = tokenizer.decode(row)
        one.end()
    return meter.report()
