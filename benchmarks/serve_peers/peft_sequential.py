"""PEFT for benchmarks/serve.py, one request at a time: `set_adapter`, then `generate`; the base by transformers."""

from __future__ import annotations

from typing import Any

import torch

from serve_peers.generation import Clock, attach, encode, load_model, name_of, tokenizer_of
from serve_peers.meter import Meter


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Answer the job's questions in their order."""
    model, tokenizer = attach(load_model(job), job), tokenizer_of(job)
    meter = Meter(job)
    for one in (Meter({"questions": job["warm"][:1]}), meter):
        one.begin()
        for number, question in enumerate(one.questions):
            one.ask(number)
            if question["adapter"] >= 0:
                model.set_adapter(name_of(question["adapter"]))
            ids = torch.tensor([encode(tokenizer, question)])
            with torch.inference_mode():
                found = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=question["tokens"],
                    streamer=Clock(one, [number]),
                )
            one.answers[number].text = tokenizer.decode(found[0, ids.shape[1] :].tolist())
        one.end()
    return meter.report()
