"""transformers' own continuous batching for benchmarks/serve.py (`generate_batch`): the base only, it takes no adapter.

Its key-value cache is sized for the job, as it would else take nine tenths of the machine's memory.
"""

from __future__ import annotations

import time
from typing import Any

from transformers import ContinuousBatchingConfig

from serve_peers.generation import encode, load_model, tokenizer_of
from serve_peers.meter import Meter


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Answer the job's questions, of which as many run at a time as there are streams."""
    model, tokenizer = load_model(job), tokenizer_of(job)
    page = ContinuousBatchingConfig().page_size
    config = ContinuousBatchingConfig(
        num_blocks=2 * job["streams"] * -(-job["context_tokens"] // page), max_requests_per_batch=job["streams"]
    )
    meter = Meter(job)
    for one in (Meter({"questions": job["warm"][: job["streams"]]}), meter):
        prompts = [encode(tokenizer, question) for question in one.questions]
        one.begin()
        for number in range(len(prompts)):
            one.ask(number)
        found = model.generate_batch(
            prompts,
            generation_config=model.generation_config,
            continuous_batching_config=config,
            record_timestamps=True,
            max_new_tokens=one.questions[0]["tokens"],
        )
        one.end()
        for number, output in enumerate(found.values()):
            if output.error:
                raise RuntimeError(output.error)
            cpu_s = time.process_time()
            one.answers[number].tokens = [(at_s, cpu_s) for at_s in output.timestamps or []]
            one.answers[number].text = tokenizer.decode(output.generated_tokens)
    return meter.report()
