"""Playground: one question to two models side by side, streamed, with latency, tokens and cost.

It asks this server's own OpenAI endpoint with a key of its own, so what is seen here is what a client gets, limits and
ledger row included.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from nicegui import app, ui

from espalier.core.errors import NotFound
from espalier.core.money import format_usd
from espalier.web import theme
from espalier.web.session import Gate

_TIMEOUT = aiohttp.ClientTimeout(total=300)
_COST_TRIES, _COST_PAUSE_S = 20, 0.1


@dataclass(slots=True)
class _Pane:
    """One side: which model, and where its answer goes."""

    model: ui.select
    answer: ui.label
    figures: ui.label


def add_pages(gate: Gate, base_url: Callable[[], str]) -> None:
    """/playground."""

    @ui.page("/playground", response_timeout=theme.PATIENCE_S)
    async def playground() -> None:
        who = gate.who()
        if who is None:
            return
        with theme.frame("Playground", who):
            ui.label("Playground").classes("text-2xl font-semibold")
            names = [deployment.model for deployment in await gate.attempt("deployments.list") or []]
            prompts = await gate.attempt("prompts.list") or []
            with ui.card().classes("sheet items-stretch gap-3"):
                templates = {"": "as written"} | {p.ref: p.ref for p in prompts}
                prompt = ui.select(templates, value="", label="Prompt").props("outlined dense").classes("w-64")
                question = (
                    ui.textarea("Question").props("outlined autogrow").classes("w-full").props("data-testid=question")
                )
                with ui.row().classes("items-center gap-4"):
                    ask = ui.button("Ask both").props("unelevated").props("data-testid=ask")
                    limit = (
                        ui.number("At most, tokens", value=160, min=1, max=1024).props("outlined dense").classes("w-40")
                    )
            with ui.row().classes("w-full gap-4 flex-nowrap items-stretch"):
                panes = [_pane(names, index) for index in (0, 1)]

            async def ask_both() -> None:
                ask.disable()
                try:
                    text = question.value or ""
                    if prompt.value:
                        rendered = await gate.attempt("prompts.render", ref=prompt.value, input=text)
                        if rendered is None:
                            return
                        messages = [turn.model_dump() for turn in rendered.messages]
                    else:
                        messages = [{"role": "user", "content": text}]
                    key = await _session_key(gate)
                    most = int(limit.value or 160)
                    await asyncio.gather(*(_ask(gate, base_url(), key, pane, messages, most) for pane in panes))
                finally:
                    ask.enable()

            ask.on_click(ask_both)


def _pane(names: list[str], index: int) -> _Pane:
    # Left a base, right the last alias: the comparison people come for.
    chosen = names[-index] if names else None
    with ui.card().classes("sheet items-stretch gap-2 w-1/2").props(f"data-testid=pane-{index}"):
        model = ui.select(names, value=chosen, label="Model").props("outlined dense").classes("w-full")
        answer = ui.label().classes("answer mono").props(f"data-testid=answer-{index}")
        figures = ui.label().classes("mono quiet").props(f"data-testid=figures-{index}")
    return _Pane(model, answer, figures)


async def _session_key(gate: Gate) -> str:
    """An API key for this browser tab, kept in this process's memory only."""
    key: str | None = app.storage.client.get("key")
    if key is None:
        made = await gate.call("keys.lend", minutes=1440)
        key = app.storage.client["key"] = str(made.secret)
    return key


async def _ask(gate: Gate, base_url: str, key: str, pane: _Pane, messages: list[dict[str, Any]], limit: int) -> None:
    pane.answer.text, pane.figures.text = "", "…"
    body = {
        "model": pane.model.value, "messages": messages, "max_tokens": limit, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    usage: dict[str, Any] = {}
    started, first_s = time.perf_counter(), 0.0
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers) as session,
        session.post(f"{base_url}/v1/chat/completions", json=body) as reply,
    ):
        if reply.status != 200:
            pane.answer.text = (await reply.json())["error"]["message"]
            pane.figures.text = f"HTTP {reply.status}"
            return
        request = reply.headers.get("x-request-id", "")
        async for line in reply.content:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                first_s = first_s or time.perf_counter() - started
                pane.answer.text += choice["delta"].get("content") or ""
    pane.figures.text = _describe(time.perf_counter() - started, first_s, usage, request)
    pane.figures.text += await _cost_of(gate, request)


async def _cost_of(gate: Gate, request: str) -> str:
    """The cost as the ledger has it; it is booked just after the last piece was sent."""
    for _ in range(_COST_TRIES):
        try:
            booked = await gate.call("usage.request", request=request)
        except NotFound:
            await asyncio.sleep(_COST_PAUSE_S)
        else:
            return f"  ·  {format_usd(booked.amount_nusd)}  ·  {booked.model}"
    return ""


def _describe(total_s: float, first_s: float, usage: dict[str, Any], request: str) -> str:
    parts = [f"first token {first_s * 1000:.0f} ms", f"total {total_s:.2f} s"]
    if usage:
        parts.append(f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens")
    return "  ·  ".join([*parts, request])
