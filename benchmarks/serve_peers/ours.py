"""Espalier's engine for benchmarks/serve.py, as the server runs it: a thread of its own, answers streamed to tasks."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from espalier.core.config import ServeConfig
from espalier.core.ports import ChatRequest
from espalier.core.types import Message, SamplingSpec
from espalier.nn.base import load_base
from espalier.serve.engine import Engine
from serve_peers.meter import Meter


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Answer the job's questions: so many streams at a time, or each when it comes."""
    base = load_base(f"path:{job['base']}", dtype=job["dtype"], threads=job["threads"], fetch=False)
    engine = Engine(base, ServeConfig(max_context_tokens=job["context_tokens"], threads=job["threads"]))
    for number, folder in enumerate(job["adapters"]):
        engine.load_adapter(_digest(number), Path(folder))
    engine.start()
    try:
        warm = Meter({"questions": job["warm"]})
        asyncio.run(_ask_all(engine, warm, job["streams"]))
        meter = Meter(job)
        asyncio.run(_ask_when_due(engine, meter) if job["arrivals"] else _ask_all(engine, meter, job["streams"]))
    finally:
        engine.stop()
    return meter.report()


async def _ask_all(engine: Engine, meter: Meter, streams: int) -> None:
    """Every stream asks its next question when its last is answered."""
    left = iter(range(len(meter.questions)))

    async def ask() -> None:
        for number in left:
            await _ask_one(engine, meter, number)

    meter.begin()
    await asyncio.gather(*(ask() for _ in range(streams)))
    meter.end()


async def _ask_when_due(engine: Engine, meter: Meter) -> None:
    async def ask(number: int) -> None:
        await asyncio.sleep(began_s + meter.questions[number]["at_s"] - time.monotonic())
        await _ask_one(engine, meter, number)

    meter.begin()
    began_s = time.monotonic()
    await asyncio.gather(*(ask(number) for number in range(len(meter.questions))))
    meter.end()


async def _ask_one(engine: Engine, meter: Meter, number: int) -> None:
    question = meter.questions[number]
    request = ChatRequest(
        id=f"q{number}",
        base="",
        adapter=_digest(question["adapter"]) if question["adapter"] >= 0 else "",
        messages=[Message(role="user", content=question["text"])],
        sampling=SamplingSpec(max_tokens=question["tokens"], ignore_end=True),
    )
    meter.ask(number)
    told, answer = 0, meter.answers[number]
    async for delta in engine.stream(request):
        used = delta.usage.completion_tokens if delta.usage else told
        meter.note(number, used - told)
        told = used
        answer.text += delta.text


def _digest(number: int) -> str:
    return f"{number:064x}"
