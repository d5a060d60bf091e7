"""A server of OpenAI's chat completions contract without a model, strict about how it is used: for tests of clients.

It answers what its script says, on loopback, and checks every request against the contract: one that breaks it is
remembered and refused, and leaving the server raises for it. A lenient double would hide a client's bug.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from espalier.core.errors import EspalierError

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "model": str, "messages": list, "max_tokens": int, "max_completion_tokens": int, "temperature": (int, float),
    "top_p": (int, float), "seed": int, "stop": list, "response_format": dict,
}  # fmt: skip
_ROLES = {"system", "user", "assistant"}


@dataclass(frozen=True, slots=True)
class Say:
    """What to answer: `text` as a completion, or a `status` with an error, or `raw` bytes in place of both."""

    text: str = ""
    status: int = 200
    code: str = ""
    message: str = "scripted"
    finish_reason: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    delay_s: float = 0.0
    until: Callable[[], bool] = lambda: True  # it is not said before


Script = Callable[[dict[str, Any], int], Say]  # (request, how often the same was asked before) -> answer


class StrictEndpoint:
    """The running double. `requests` are those that kept the contract, in the order they came."""

    def __init__(self, script: Script, model: str, key: str) -> None:
        self.requests: list[dict[str, Any]] = []
        self.violations: list[str] = []
        self.most_in_flight = 0
        self.url = ""
        self._script, self._model, self._key = script, model, key
        self._asked: Counter[str] = Counter()
        self._in_flight = 0

    def count(self, text: str) -> int:
        """How many requests hold `text` in their last message."""
        return sum(text in request["messages"][-1]["content"] for request in self.requests)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        wrong = self._check(request, body)
        if wrong:
            self.violations.append(wrong)
            return _refuse(Say(status=400, message=wrong))
        call = json.loads(body)
        self.requests.append(call)
        before = self._asked[body.decode()]
        self._asked[body.decode()] += 1
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            said = self._script(call, before)
            await asyncio.sleep(said.delay_s)
            while not said.until():
                await asyncio.sleep(0.001)
        finally:
            self._in_flight -= 1
        if said.raw is not None:
            return web.Response(body=said.raw, status=said.status, headers=said.headers)
        return _refuse(said) if said.status != 200 else self._complete(call, said, len(self.requests))

    def _check(self, request: web.Request, body: bytes) -> str:
        if request.content_type != "application/json":
            return f"content type {request.content_type}"
        if self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
            return "no such key"
        try:
            call = json.loads(body.decode())
        except ValueError:
            return "the body is not JSON"
        unknown = set(call) - set(_FIELDS)
        if unknown:
            return f"unknown parameter {min(unknown)}"
        bad = [name for name, value in call.items() if not isinstance(value, _FIELDS[name]) or value is True]
        if bad:
            return f"bad type of {bad[0]}"
        if call.get("model") != self._model:
            return f"no model {call.get('model')}"
        if {"max_tokens", "max_completion_tokens"} <= set(call):
            return "max_tokens and max_completion_tokens at once"
        if "top_p" in call and not 0 < call["top_p"] <= 1:
            return f"top_p {call['top_p']}"
        return _check_messages(call.get("messages") or [])

    def _complete(self, call: dict[str, Any], said: Say, number: int) -> web.Response:
        message = {"role": "assistant", "content": said.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish_reason}
        prompt = sum(len(turn["content"].split()) for turn in call["messages"])
        answer = len(said.text.split())
        usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
        return web.json_response(
            {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 0, "model": call["model"],
             "choices": [choice], "usage": usage}
        )  # fmt: skip


@contextmanager
def serve_script(script: Script, *, model: str = "scripted", key: str = "") -> Iterator[StrictEndpoint]:
    """A running double on a free port. Leaving raises EspalierError when a request broke the contract."""
    double = StrictEndpoint(script, model, key)
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", double.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        double.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    runner = loop.run_until_complete(start())
    loop.call_soon(ready.set)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield double
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    if double.violations:
        raise EspalierError(f"a request broke the contract: {double.violations[0]}")


def _check_messages(messages: list[Any]) -> str:
    for turn in messages:
        if set(turn) != {"role", "content"} or not isinstance(turn["content"], str) or turn["role"] not in _ROLES:
            return "a message is a role and a content"
    if not messages or messages[-1]["role"] != "user":
        return "the last turn is not the user's"
    return ""


def _refuse(said: Say) -> web.Response:
    fault = {"message": said.message, "type": "error", "param": None, "code": said.code or None}
    return web.json_response({"error": fault}, status=said.status, headers=said.headers)
