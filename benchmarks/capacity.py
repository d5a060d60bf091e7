"""Whether reserved capacity holds: one model's time to first token and tokens a second, alone and under a flood.

One engine, one process, three phases in turn, several rounds of each: the reserved model alone; with a flood of
on-demand requests beside it; the same flood without the reservation. Ratios compare with the unloaded figures of the
same run: 1.0 = as if alone. All of it runs in the embedded engine, as clients of it would see it; nothing is stubbed.

    python benchmarks/capacity.py [--size 15m] [--threads 1] [--rounds 3] [--seconds 5] [--flood 48] [--slack 1.15]

Last line: JSON with `ratios` {ttft_p95_reserved, tps_reserved, ttft_p95_unreserved, tps_unreserved} (times: loaded over
unloaded; rates: unloaded over loaded, so that 1.3 is as far off in either), the figures themselves, and the settings.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_material import make_adapters, make_serving_base
from train_material import SHAPES

from espalier.core.config import ServeConfig, SharingConfig
from espalier.core.ports import ChatRequest, ReservedShare
from espalier.core.types import Message, SamplingSpec
from espalier.nn.base import load_base
from espalier.serve.engine import Engine

WORK = Path(__file__).resolve().parents[1] / ".benchmarks/serve"
STREAMS = 2  # of the reserved model
SHARE = ReservedShare("gold", slots=STREAMS, tokens_per_minute=6_000_000)
PHASES = ("alone", "reserved", "unreserved")


@dataclass(slots=True)
class Tally:
    """What one asker's requests met with."""

    first_s: list[float] = field(default_factory=list)  # until the first token
    spans_s: list[float] = field(default_factory=list)  # from there to the last
    tokens: int = 0  # after the first

    def figures(self) -> dict[str, float]:
        ordered = sorted(self.first_s)
        return {
            "requests": len(ordered),
            "ttft_p50_ms": round(1000 * statistics.median(ordered), 2),
            "ttft_p95_ms": round(1000 * ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))], 2),
            "tokens_per_s": round(self.tokens / sum(self.spans_s), 2),  # of one stream
        }


class House:
    """An engine and those who ask it."""

    def __init__(self, options: argparse.Namespace) -> None:
        folder = make_serving_base(WORK / f"base-{options.size}", options.size)
        base = load_base(f"path:{folder}", dtype="float32", threads=options.threads, fetch=False)
        sharing = SharingConfig(reserved_slack=options.slack, reserved_wait_share=options.slack - 1)
        config = ServeConfig(
            max_batch=16, max_context_tokens=512, step_budget_tokens=256, threads=options.threads, sharing=sharing
        )
        self.engine = Engine(base, config)
        self.adapters = [f"{number:064x}" for number in range(1, 5)]
        places = make_adapters(WORK / f"adapters-{options.size}", folder, 4, 8)
        for digest, place in zip(self.adapters, places, strict=True):
            self.engine.load_adapter(digest, Path(place))
        self.vocabulary = SHAPES[options.size]["vocab_size"]
        self._draw = random.Random(0)

    async def ask(self, flow: str, reservation: str, adapter: str, prompt: int, answer: int, tally: Tally) -> None:
        text = " ".join(f"w{self._draw.randrange(100, self.vocabulary)}" for _ in range(prompt))
        sampling = SamplingSpec(max_tokens=answer)
        request = ChatRequest(
            "r", "", adapter, [Message("user", text)], sampling, flow=flow, reservation=reservation
        )  # fmt: skip
        began_s = time.perf_counter()
        first_s = 0.0
        async with aclosing(self.engine.stream(request)) as deltas:  # type: ignore[type-var]
            async for _ in deltas:  # one token each: a word is a token
                if not first_s:
                    first_s = time.perf_counter()
                    tally.first_s.append(first_s - began_s)
                else:
                    tally.tokens += 1
        tally.spans_s.append(time.perf_counter() - first_s)

    async def run(self, phase: str, seconds: float, flood: int, gold: Tally, others: Tally) -> None:
        """One round of one phase."""
        self.engine.hold([] if phase == "unreserved" else [SHARE])
        end_s = time.perf_counter() + seconds
        draw = random.Random(phase)

        async def reserved() -> None:
            name = "" if phase == "unreserved" else SHARE.name
            while time.perf_counter() < end_s:
                await self.ask("gold", name, self.adapters[0], draw.randint(48, 80), 32, gold)
                await asyncio.sleep(draw.uniform(0.0, 0.1))

        async def unreserved(number: int) -> None:
            adapter = ["", *self.adapters[1:]][number % 4]
            while time.perf_counter() < end_s:
                await self.ask(f"client{number % 3}", "", adapter, draw.randint(32, 96), 64, others)

        asking = [asyncio.create_task(unreserved(number)) for number in range(0 if phase == "alone" else flood)]
        await asyncio.sleep(0.5 if asking else 0.0)
        await asyncio.gather(*(reserved() for _ in range(STREAMS)))
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def measure(house: House, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    await house.run("unreserved", options.seconds / 2, options.flood, Tally(), Tally())  # it learns what steps cost
    gold = {phase: Tally() for phase in PHASES}
    others = {phase: Tally() for phase in PHASES}
    for _ in range(options.rounds):
        for phase in PHASES:
            await house.run(phase, options.seconds, options.flood, gold[phase], others[phase])
    found: dict[str, dict[str, Any]] = {}
    for phase in PHASES:
        spent_s = options.seconds * options.rounds
        found[phase] = gold[phase].figures() | {"on_demand_tokens_per_s": round(others[phase].tokens / spent_s, 1)}
        print(f"{phase:<11}", "  ".join(f"{name} {value}" for name, value in found[phase].items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="15m", choices=sorted(SHAPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each phase in each round")
    parser.add_argument("--flood", type=int, default=48, help="clients on demand, each always asking")
    parser.add_argument("--slack", type=float, default=1.15, help="serve.sharing.reserved_slack, and wait_share + 1")
    options = parser.parse_args()
    house = House(options)
    house.engine.start()
    try:
        found = asyncio.run(measure(house, options))
    finally:
        house.engine.stop()
    alone, reserved, unreserved = (found[phase] for phase in PHASES)
    ratios = {
        "ttft_p95_reserved": reserved["ttft_p95_ms"] / alone["ttft_p95_ms"],
        "tps_reserved": alone["tokens_per_s"] / reserved["tokens_per_s"],
        "ttft_p95_unreserved": unreserved["ttft_p95_ms"] / alone["ttft_p95_ms"],
        "tps_unreserved": alone["tokens_per_s"] / unreserved["tokens_per_s"],
    }
    rounded = {name: round(ratio, 2) for name, ratio in ratios.items()}
    print(json.dumps({"ratios": rounded, "figures": found, "settings": vars(options)}))


if __name__ == "__main__":
    main()
