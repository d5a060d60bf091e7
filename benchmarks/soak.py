"""A served house under mixed load for a long time: does anything leak, stick, or answer for another?

    python benchmarks/soak.py --minutes 60
    python benchmarks/soak.py --minutes 10             the longest form for CI
    python benchmarks/soak.py --minutes 0.5 --warm 0.1

`espalier serve` runs in a process of its own on a tiny base with 16 adapters, of which 10 fit at once, so that they are
evicted and loaded all the time. Clients ask in all ways at once: streamed and whole answers, answers left in the middle
(more than a quarter of all), several answers with a seed, answers of a form, requests that must be refused, batches of
30 lines in the batch lane; an alias is moved every second.

Checked in every answer: who answered (header and fingerprint) is who was asked, and the text is what PEFT says of that
adapter alone, word for word. At the end, when nobody asks any more: no request, slot, lease or task is left, and no
reservation in the ledger. Memory is the server's resident set, median of the last tenth of the time against that of the
first tenth after the warm-up.

Prints a line a minute and, last, JSON; `ok` says whether all of it held. Exits with 1 where it did not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from soak_clients import Book, Clients, move_alias, run_batch
from soak_house import House, make_house, median

HERE = Path(__file__).parent
SLOTS, LOADED = 12, 10
SETTINGS = (
    "serve.port=0",
    "serve.web=false",
    f"serve.max_batch={SLOTS}",
    "serve.threads=1",
    f"serve.max_adapters={LOADED}",
)
MOVE_EVERY_S, BATCH_EVERY_S, QUIET_S = 1.0, 4.0, 60.0
MOST_GROWTH = 0.02
TOLD_WRONG = 20


@dataclass(slots=True)
class Server:
    """The process under load."""

    process: subprocess.Popen[str]
    url: str
    rss_mb: list[tuple[float, float]] = field(default_factory=list)  # (seconds since the start, MB)

    def look(self) -> dict[str, Any]:
        """What is alive inside. Blocks until the server has counted."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("look\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def read_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--warm", type=float, default=None, help="minutes before memory counts; a tenth, if not given")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--adapters", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(Path(folder), given)
    print(json.dumps(result))
    sys.exit(0 if result["ok"] else 1)


def soak(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Serve, ask, stop, and judge."""
    house = make_house(folder, given.adapters)
    server = start(house, folder)
    book = Book()
    try:
        asyncio.run(load(house, server, book, given))
        after = wait_until_quiet(server)
    finally:
        server.process.terminate()
        code = server.process.wait(240)
    log = (folder / "log").read_text()
    return judge(house, server, book, given, after) | {"exit_code": code, "log": log.splitlines()[-TOLD_WRONG:]}


def start(house: House, folder: Path) -> Server:
    """The server, ready."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "soak_server.py"), str(house.workspace), *SETTINGS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environ | {"OMP_NUM_THREADS": "1"},
        )
    assert process.stdout is not None
    first = process.stdout.readline()
    if not first:
        sys.exit((folder / "log").read_text())
    return Server(process, json.loads(first)["url"])


async def load(house: House, server: Server, book: Book, given: argparse.Namespace) -> None:
    """All clients until time is up; what they have begun they end."""
    began_s = time.monotonic()
    end_s = began_s + given.minutes * 60
    headers = {"Authorization": f"Bearer {house.user}"}
    timeout = aiohttp.ClientTimeout(total=120)
    # Let go before the server does (uvicorn: after 5 s), which could be just as something is asked.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    draw = random.Random(given.seed)

    async def client(number: int) -> None:
        clients = Clients(house, session, book, given.seed * 1000 + number)
        while time.monotonic() < end_s:
            await clients.ask()

    async def mover() -> None:
        while time.monotonic() < end_s:
            await move_alias(house, session, book, draw.choice(list(house.moving)))
            await asyncio.sleep(MOVE_EVERY_S)

    async def batcher() -> None:
        while time.monotonic() < end_s:
            try:
                await run_batch(house, session, book, draw)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
                book.wrong.append(f"batch: {type(error).__name__}: {error}")
            await asyncio.sleep(BATCH_EVERY_S)

    async def watcher() -> None:
        told_s = began_s
        while (now_s := time.monotonic()) < end_s:
            server.rss_mb.append((now_s - began_s, server.read_mb()))
            if now_s - told_s >= 60:
                told_s = now_s
                done = sum(book.asked.values())
                print(f"{(now_s - began_s) / 60:5.1f} min  {done} requests  {len(book.wrong)} wrong  ", end="")
                print(f"{server.rss_mb[-1][1]:.1f} MB", flush=True)
            await asyncio.sleep(0.5)

    async with aiohttp.ClientSession(server.url, headers=headers, timeout=timeout, connector=connector) as session:
        await asyncio.gather(watcher(), mover(), batcher(), *(client(number) for number in range(given.clients)))


def wait_until_quiet(server: Server) -> dict[str, Any]:
    """What is alive once nobody asks any more, as soon as it is nothing, or after a minute."""
    until_s = time.monotonic() + QUIET_S
    while True:
        found = server.look()
        if not left_over(found) or time.monotonic() > until_s:
            return found
        time.sleep(1.0)


def left_over(found: dict[str, Any]) -> dict[str, int]:
    """Of what is alive, that which belongs to a request; what a cache slot remembers is no leak, but bounded."""
    kinds = {name: count for name, count in found["alive"].items() if not name.endswith(("Task", "Lease", "Work"))}
    works = sum(count for name, count in found["alive"].items() if name.endswith("Work"))
    beyond = {"works": works} if works > SLOTS else {}
    return kinds | beyond | {name: found[name] for name in ("running", "waiting") if found[name]}


def judge(house: House, server: Server, book: Book, given: argparse.Namespace, after: dict[str, Any]) -> dict[str, Any]:
    """The verdict, with what it rests on."""
    from espalier.store.store import open_store
    from espalier.store.workspace import find_workspace

    store = open_store(find_workspace(house.workspace))
    reservations = len(store.ledger.reservations())
    store.close()
    warm_s, whole_s = 60 * (given.minutes / 10 if given.warm is None else given.warm), 60 * given.minutes
    window_s = (whole_s - warm_s) / 10
    first = median(_within(server.rss_mb, warm_s, warm_s + window_s))
    last = median(_within(server.rss_mb, whole_s - window_s, whole_s))
    growth = last / first - 1
    left = left_over(after)
    checks = {
        "answers": not book.wrong,
        "memory": growth <= MOST_GROWTH,
        "nothing_left": not left,
        "reservations": reservations == 0,
    }
    return {
        "ok": all(checks.values()),
        "checks": checks,
        "minutes": given.minutes,
        "asked": dict(book.asked),
        "wrong": len(book.wrong),
        "wrong_kinds": dict(Counter(re.split(r"[,:]", told)[0] for told in book.wrong)),
        "examples": book.wrong[:TOLD_WRONG],
        "memory": {"first_mb": round(first, 1), "last_mb": round(last, 1), "growth": round(growth, 4)},
        "after": after,
        "reservations": reservations,
    }


def _within(readings: list[tuple[float, float]], from_s: float, to_s: float) -> list[float]:
    """The readings of a time; the nearest one where there is none: a short time may pass while nobody looks."""
    found = [mb for at_s, mb in readings if from_s <= at_s <= to_s]
    middle_s = (from_s + to_s) / 2
    return found or [min(readings, key=lambda reading: abs(reading[0] - middle_s))[1]]


if __name__ == "__main__":
    main()
