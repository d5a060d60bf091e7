"""kill -9, again and again: of who works on a batch, and of a server whose clients stream. Nothing is lost or doubled.

Three kills by default; ESPALIER_KILLS=20 for as many as one likes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest

from espalier.core.types import LedgerEntry
from espalier.gateway.batch.records import Batch, Batches, Standing
from espalier.gateway.keys import ApiKey, KeyRing
from espalier.store.store import Store, open_store
from espalier.store.workspace import Workspace, init_workspace

KILLS = int(os.environ.get("ESPALIER_KILLS", "3"))
LINES = 40 * KILLS + 60
TOKEN_NUSD = 1000
DELAY_S = 0.01

HOUSE = f"""
import asyncio, sys
from pathlib import Path
from espalier.core.config import BatchConfig, GatewayConfig, PriceConfig
from espalier.core.types import SamplingSpec
from espalier.gateway.assembly import add_batches, open_gateway
from espalier.gateway.route import Target
from espalier.store.store import open_store
from espalier.store.workspace import find_workspace
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver

target = Target("model:support@v1", "builtin:seedling", "a" * 64, 64, SamplingSpec(max_tokens=20))
config = GatewayConfig(prices={{"*": PriceConfig(prompt="1", completion="1")}}, requests_per_minute=100000)
store = open_store(find_workspace(Path(sys.argv[1])))
resolver = FixedResolver({{"support@production": target, "support@v1": target}}, {{}})
gateway = open_gateway(store, StrictProvider(delay_s={DELAY_S}), resolver, config)
batch = BatchConfig(max_in_flight=8, lease_s=1.0, sync_every_s=0.05)
add_batches(gateway, store, batch, 1 << 20, work=True)
"""
WORKER = (
    HOUSE
    + """
if "held" in sys.argv:  # it never publishes: however late the kill comes, the batch has not ended
    import threading
    import espalier.gateway.batch.work

    espalier.gateway.batch.work.publish = lambda *given: threading.Event().wait()

async def work():
    await gateway.start()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(work())
"""
)
SERVER = (
    HOUSE
    + """
import uvicorn

class Announcing(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("ready", flush=True)

Announcing(uvicorn.Config(gateway, port=int(sys.argv[2]), log_level="error", ws="none", lifespan="on")).run()
"""
)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of the script, ready."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    process.communicate()


def usage_of(store: Store) -> list[LedgerEntry]:
    return list(store.ledger.list(kind="usage", limit=100_000))


def input_lines(count: int) -> list[dict[str, Any]]:
    """Requests whose answers can be foretold: the provider gives the words back in reverse."""
    return [
        {
            "custom_id": f"line-{number:05d}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "support", "messages": [{"role": "user", "content": f"{number} is {number * 7}"}]},
        }
        for number in range(count)
    ]


def make_batch(store: Store, folder: Path, lines: list[dict[str, Any]], key: ApiKey) -> Batch:
    file = folder / "input.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    sha256, size_bytes = store.blobs.put_file(file)
    return Batches(store).create("openai", file.name, sha256, size_bytes, key=key)


def done(standing: Standing) -> int:
    return standing.progress.completed + standing.progress.failed if standing.progress else 0


def wait_for(batches: Batches, id: str, lines: int) -> Standing:
    """Until so many lines are done, or the batch has ended; the test's own time limit ends it."""
    while True:
        standing = batches.get(id)
        if standing.end is not None or done(standing) >= lines:
            return standing
        time.sleep(0.005)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = open_store(init_workspace(tmp_path))
    yield opened
    opened.close()


def test_a_batch_whose_worker_is_killed_at_random_is_complete_exact_in_order_and_charged_once(
    store: Store, tmp_path: Path
) -> None:
    draw = random.Random(KILLS)
    key = KeyRing(store).create("batch", budget_nusd=10**12).key
    lines = input_lines(LINES)
    batch = make_batch(store, tmp_path, lines, key)
    batches = Batches(store)
    killed_at: list[int] = []
    for kill in range(KILLS):
        process = start(WORKER, tmp_path, "held")
        begun = done(batches.get(batch.id))
        share = (LINES - begun) // (KILLS - kill + 2)  # enough is left for the kills to come
        wait_for(batches, batch.id, begun + draw.randint(0, share))
        time.sleep(draw.random() * 2 * DELAY_S)
        end(process, signal.SIGKILL)
        standing = batches.get(batch.id)
        assert standing.end is None
        killed_at.append(done(standing))
    process = start(WORKER, tmp_path)
    ended = wait_for(batches, batch.id, LINES + 1).end
    while batches.folder_of(batch.id).exists():  # it goes after the end is written down
        time.sleep(0.01)
    end(process, signal.SIGTERM)
    sys.stdout.write(f"killed {KILLS} times, at {killed_at} of {LINES} lines\n")
    assert max(killed_at) > 0

    assert ended is not None
    assert (ended.status, ended.total, ended.completed, ended.failed) == ("completed", LINES, LINES, 0)
    results = [json.loads(line) for line in store.blobs.read(ended.output).splitlines()]
    assert [result["custom_id"] for result in results] == [line["custom_id"] for line in lines]
    answers = [result["response"]["body"]["choices"][0]["message"]["content"] for result in results]
    assert answers == [f"{number * 7} is {number}" for number in range(LINES)]
    assert ended.errors == ""

    rows = usage_of(store)
    assert Counter(row.request for row in rows) == Counter(batch.request_id(number) for number in range(LINES))
    assert {(row.prompt_tokens, row.completion_tokens, row.detail["finish"]) for row in rows} == {(6, 3, "stop")}
    balance = store.ledger.balance(key.account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (LINES * 9 * TOKEN_NUSD, 0)


class Client(threading.Thread):
    """Asks one streamed question after the other, and again when the answer broke off; notes what it got whole."""

    def __init__(self, url: str, secret: str, name: str) -> None:
        super().__init__(name=name)
        self._client = openai.OpenAI(base_url=url, api_key=secret, max_retries=0, timeout=20)
        self.over = threading.Event()
        self.whole: dict[str, str] = {}  # request id -> text
        self.broken = 0
        self.unclean: list[str] = []

    def run(self) -> None:
        number = 0
        while not self.over.is_set():
            number += 1
            expected = f"{number} for asks {self.name}"
            while not self.ask(f"{self.name} asks for {number}", expected) and not self.over.is_set():
                self.broken += 1
                time.sleep(0.05)

    def ask(self, question: str, expected: str) -> bool:
        text, finish, id = "", None, ""
        try:
            stream = self._client.chat.completions.create(
                model="support", messages=[{"role": "user", "content": question}], stream=True
            )
            with stream:
                for chunk in stream:
                    id = chunk.id
                    for choice in chunk.choices:
                        text += choice.delta.content or ""
                        finish = choice.finish_reason or finish
        except Exception as error:  # noqa: BLE001 - which kinds come, is what is looked at
            module = type(error).__module__.partition(".")[0]
            if module not in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
                self.unclean.append(repr(error))
            return False
        if finish is None:  # the stream ended without an error and without an end: it must not look like an answer
            self.unclean.append(f"{text!r} looks whole")
        elif text != expected:
            self.unclean.append(f"{text!r} is not {expected!r}")
        self.whole[id.removeprefix("chatcmpl-")] = text
        return True


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_killed_server_s_clients_see_an_error_or_an_answer_and_no_ledger_row_is_lost(
    store: Store, tmp_path: Path
) -> None:
    draw = random.Random(KILLS)
    new = KeyRing(store).create("clients", budget_nusd=10**12)
    port = free_port()
    clients = [Client(f"http://127.0.0.1:{port}/v1", new.secret, f"client{number}") for number in range(6)]
    process = start(SERVER, tmp_path, port)
    for client in clients:
        client.start()
    for _ in range(KILLS):
        answered = sum(len(client.whole) for client in clients)
        while sum(len(client.whole) for client in clients) < answered + 12:  # all are at work again
            time.sleep(0.01)
        time.sleep(draw.random() * 0.1)
        end(process, signal.SIGKILL)
        process = start(SERVER, tmp_path, port)
    for client in clients:
        client.over.set()
    for client in clients:
        client.join()
    end(process, signal.SIGTERM)
    end(start(SERVER, tmp_path, port), signal.SIGTERM)  # a start finds what the last one left, if it left anything

    broken = sum(client.broken for client in clients)
    whole = {id for client in clients for id in client.whole}
    sys.stdout.write(f"killed {KILLS} times: {len(whole)} answers whole, {broken} requests broken off\n")
    assert [said for client in clients for said in client.unclean] == []
    assert broken > 0
    rows = usage_of(store)
    per_request = Counter(row.request for row in rows)
    assert set(per_request.values()) == {1}
    finished = {row.request for row in rows if row.detail["finish"] == "stop"}
    assert whole <= finished, "who has an answer has one row, and it tells of a whole answer"
    lost = [row for row in rows if row.detail["finish"] == "lost"]
    assert len(finished - whole) + len(lost) <= broken
    assert store.ledger.reservations() == []
    balance = store.ledger.balance(new.key.account)
    assert (balance.spent_nusd, balance.reserved_nusd) == (sum(row.amount_nusd for row in rows), 0)


@pytest.mark.slow
def test_a_killed_command_goes_on_where_it_was_and_answers_as_if_undisturbed(tmp_path: Path) -> None:
    """The real engine, greedy and drawn: `espalier batch run` killed, and run again, against one that nobody killed."""
    lines, kills = (60 + 40 * KILLS, KILLS) if KILLS > 3 else (30, 1)
    answers = {}
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        workspace = init_workspace(folder)
        asked = folder / "asked.jsonl"
        with asked.open("w", encoding="utf-8") as stream:
            for number in range(lines):
                body: dict[str, Any] = {
                    "messages": [{"role": "user", "content": f"Number {number}?"}],
                    "max_tokens": 12,
                }
                body |= {"temperature": 1.0, "seed": number} if number % 2 else {}
                line = {"custom_id": f"{number:04d}", "method": "POST", "url": "/v1/chat/completions", "body": body}
                stream.write(json.dumps(line) + "\n")
        killed_at = [run_and_kill(workspace, asked, draw) for draw in range(kills)] if name == "killed" else []
        run_command(workspace, asked).wait()
        output = [json.loads(line) for line in (folder / "answers.jsonl").read_bytes().splitlines()]
        assert [result["custom_id"] for result in output] == [f"{number:04d}" for number in range(lines)]
        answers[name] = [(r["response"]["body"]["choices"], r["response"]["body"]["usage"]) for r in output]
        with contextlib.closing(open_store(workspace)) as store:
            assert set(Counter(row.request for row in usage_of(store)).values()) == {1}
            assert len(usage_of(store)) == lines
    sys.stdout.write(f"killed {kills} times, at {killed_at} of {lines} lines\n")
    for undisturbed, killed in zip(answers["undisturbed"], answers["killed"], strict=True):
        assert undisturbed[0] == killed[0]
        assert undisturbed[1]["completion_tokens"] == killed[1]["completion_tokens"]


HELD = """
import sys, threading
import espalier.gateway.batch.work
from espalier.cli.main import main

espalier.gateway.batch.work.publish = lambda *given: threading.Event().wait()
sys.exit(main(sys.argv[1:]))
"""


def run_command(workspace: Workspace, asked: Path, *, held: bool = False) -> subprocess.Popen[bytes]:
    """`espalier batch run`; `held`, it never publishes: however late a kill comes, the batch has not ended."""
    program = ["-c", HELD] if held else ["-m", "espalier.cli.main"]
    command = [sys.executable, *program, "batch", "run", str(asked), "--model", "builtin:seedling"]
    command += ["--output", str(asked.with_name("answers.jsonl")), "--workspace", str(workspace.root)]
    command += ["--set", "batch.lease_s=3", "--set", "batch.sync_every_s=0.05", "--set", "batch.max_in_flight=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def run_and_kill(workspace: Workspace, asked: Path, seed: int) -> int:
    """Run the command and kill it soon after it has answered something; returns how many lines were done."""
    draw = random.Random(seed)
    with contextlib.closing(open_store(workspace)) as store:
        batches = Batches(store)
        known = batches.list()
        before = done(known[0]) if known else 0
        process = run_command(workspace, asked, held=True)
        while not batches.list():
            time.sleep(0.02)
        id = batches.list()[0].batch.id
        wait_for(batches, id, before + draw.randint(1, 6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert batches.get(id).end is None
        return done(batches.get(id))
