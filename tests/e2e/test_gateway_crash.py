"""kill -9 while a server streams an answer: the next server's start charges what was held, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from http.client import HTTPResponse
from pathlib import Path

from espalier.gateway.keys import KeyRing
from espalier.store.store import open_store
from espalier.store.workspace import init_workspace

TOKEN_NUSD = 1000
BUDGET_TOKENS = 100
WORST_TOKENS = 6 + 20  # the prompt, and the most answer the deployment gives

SERVE = """
import asyncio, sys
from pathlib import Path
import uvicorn
from espalier.core.config import GatewayConfig, PriceConfig
from espalier.core.types import SamplingSpec
from espalier.gateway.assembly import open_gateway
from espalier.gateway.route import Target
from espalier.store.store import open_store
from espalier.store.workspace import find_workspace
from espalier.testing.provider import StrictProvider
from espalier.testing.resolver import FixedResolver

provider = StrictProvider()
provider.gate = asyncio.Event()  # never opened: every answer stops after its first word
target = Target("model:support@v1", "builtin:seedling", "a" * 64, 64, SamplingSpec(max_tokens=20))
config = GatewayConfig(prices={"*": PriceConfig(prompt="1", completion="1")})
store = open_store(find_workspace(Path(sys.argv[1])))
gateway = open_gateway(store, provider, FixedResolver({"support@production": target}, {}), config)

class Announcing(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)

Announcing(uvicorn.Config(gateway, port=0, log_level="error", ws="none", lifespan="on")).run()
"""


def start(workspace: Path) -> tuple[subprocess.Popen[str], str]:
    """A server process, ready, and its URL."""
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(workspace)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, f"http://127.0.0.1:{int(process.stdout.readline())}/v1/chat/completions"


def read_until_first_word(url: str, secret: str) -> HTTPResponse:
    """Ask, streaming; the caller keeps the connection open."""
    body = {"model": "support", "stream": True, "messages": [{"role": "user", "content": "one two three"}]}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Authorization": f"Bearer {secret}"})
    reply: HTTPResponse = urllib.request.urlopen(request)
    while b'"three"' not in reply.readline():
        pass
    return reply


def end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    os.kill(process.pid, number)
    process.communicate()


def test_a_killed_server_s_answers_are_charged_once_when_the_next_one_starts(tmp_path: Path) -> None:
    store = open_store(init_workspace(tmp_path))
    new = KeyRing(store).create("test", budget_nusd=BUDGET_TOKENS * TOKEN_NUSD)
    process, url = start(tmp_path)
    replies = [read_until_first_word(url, new.secret) for _ in range(3)]
    end(process, signal.SIGKILL)
    for reply in replies:
        reply.close()
    held = store.ledger.balance(new.key.account)
    assert (held.spent_nusd, held.reserved_nusd) == (0, 3 * WORST_TOKENS * TOKEN_NUSD)
    for _ in range(2):  # the second start finds nothing left to charge
        process, _ = start(tmp_path)
        end(process, signal.SIGTERM)
        balance = store.ledger.balance(new.key.account)
        assert (balance.spent_nusd, balance.reserved_nusd) == (3 * WORST_TOKENS * TOKEN_NUSD, 0)
    rows = store.ledger.list(kind="usage")
    assert [(row.detail["finish"], row.model, row.key) for row in rows] == [
        ("lost", "model:support@v1", new.key.id)
    ] * 3
    assert list((store.workspace.folder / "gateway").iterdir()) == []
    store.close()
