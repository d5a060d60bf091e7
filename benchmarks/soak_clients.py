"""The clients of benchmarks/soak.py: each asks something, knows what must come, and says what was wrong with it.

Knows HTTP and OpenAI's shapes only; what is served and what it says, a `House` tells.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from soak_house import LONGEST_ANSWER, MOVING, QUESTIONS, House, messages_of

CHAT = "/v1/chat/completions"
_SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["repair", "invoice", "other"]}, "urgent": {"type": "boolean"}},
    "required": ["kind", "urgent"],
    "additionalProperties": False,
}


@dataclass(slots=True)
class Book:
    """What was asked, and everything that was wrong."""

    asked: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    drawn: dict[str, Any] = field(default_factory=dict)  # the first answer to each question with a seed or a form
    tokens: int = 0

    def same(self, question: str, answer: Any) -> bool:
        """Whether an answer is the one that this question had before."""
        return bool(self.drawn.setdefault(question, answer) == answer)


class Clients:
    """`ask` forever; each call is one request of a random kind."""

    def __init__(self, house: House, session: aiohttp.ClientSession, book: Book, seed: int) -> None:
        self._house, self._session, self._book = house, session, book
        self._draw = random.Random(seed)
        self._kinds = {
            self._stream: 30,
            self._whole: 22,
            self._cancel: 28,
            self._several: 7,
            self._form: 8,
            self._bad: 5,
        }

    async def ask(self) -> None:
        """One request; what is wrong with its answer goes into the book."""
        (kind,) = self._draw.choices(list(self._kinds), list(self._kinds.values()))
        name = kind.__name__.strip("_")
        self._book.asked[name] += 1
        try:
            await kind()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            self._book.wrong.append(f"{name}: {type(error).__name__}: {error}")

    async def _stream(self) -> None:
        model, question, most = self._choose()
        async with self._post(model, question, most, stream=True) as reply:
            digest = await self._check_digest(reply, model)
            text, finish, prints = "", "", set()
            async for chunk in _events(reply):
                prints.add(chunk["system_fingerprint"] or "base")
                for choice in chunk["choices"]:
                    text += choice["delta"].get("content") or ""
                    finish = choice["finish_reason"] or finish
            self._check_text(model, digest, question, most, text, finish)
            if prints != {digest}:
                self._book.wrong.append(f"{model}: chunks are signed {sorted(prints)}, the answer is {digest}'s")

    async def _whole(self) -> None:
        model, question, most = self._choose()
        async with self._post(model, question, most) as reply:
            digest = await self._check_digest(reply, model)
            body = await reply.json()
            choice = body["choices"][0]
            self._check_text(model, digest, question, most, choice["message"]["content"], choice["finish_reason"])
            if (body["system_fingerprint"] or "base") != digest:
                self._book.wrong.append(f"{model}: signed {body['system_fingerprint']}, headed {digest}")
            self._book.tokens += body["usage"]["completion_tokens"]

    async def _cancel(self) -> None:
        """Leave before the answer's end: at once, before its first word, or after some."""
        model, question, _ = self._choose()
        patience = self._draw.choice([0, 0, 1, 2, 4, 8, 16])
        if patience == 0:
            asking = asyncio.ensure_future(self._read_some(model, question, 1))
            await asyncio.sleep(self._draw.uniform(0, 0.05))
            asking.cancel()
            await asyncio.wait({asking})
            if not asking.cancelled() and asking.exception():
                raise asking.exception() or ValueError
        else:
            await self._read_some(model, question, patience)

    async def _read_some(self, model: str, question: int, pieces: int) -> None:
        async with self._post(model, question, LONGEST_ANSWER, stream=True) as reply:
            digest = await self._check_digest(reply, model)
            text = ""
            async for chunk in _events(reply):
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                pieces -= 1
                if pieces <= 0:
                    reply.close()
                    break
        whole = self._house.expected(digest if digest != "base" else "", question, LONGEST_ANSWER).text
        if not whole.startswith(text):
            self._book.wrong.append(f"{model}: began {text!r} where {digest[:8]} says {whole!r}")

    async def _several(self) -> None:
        """Three answers drawn with a seed: the same whoever shares the batch."""
        model, question, most = self._choose(moving=False)
        seed = self._draw.randrange(3)
        async with self._post(model, question, most, n=3, temperature=0.8, seed=seed) as reply:
            digest = await self._check_digest(reply, model)
            body = await reply.json()
            answers = [choice["message"]["content"] for choice in sorted(body["choices"], key=lambda one: one["index"])]
            if len(answers) != 3 or not self._book.same(f"{digest}/{question}/{most}/{seed}", answers):
                self._book.wrong.append(f"{model}: seed {seed} gave {answers} now and other answers before")

    async def _form(self) -> None:
        model, question, _ = self._choose(moving=False)
        async with self._post(model, question, 64, response_format=_form_of(_SCHEMA)) as reply:
            digest = await self._check_digest(reply, model)
            choice = (await reply.json())["choices"][0]
            text = choice["message"]["content"]
            if choice["finish_reason"] == "stop" and set(json.loads(text)) != {"kind", "urgent"}:
                self._book.wrong.append(f"{model}: {text!r} is not of the form asked for")
            if not self._book.same(f"{digest}/{question}/form", text):
                self._book.wrong.append(f"{model}: {text!r} now and another answer before")

    async def _bad(self) -> None:
        """What must be refused, and is, without a trace."""
        body: dict[str, Any] = {"model": "tenant-00", "messages": messages_of(0), "max_completion_tokens": 4}
        status, change = self._draw.choice(
            [
                (404, {"model": "tenant-oo"}),
                (400, {"temperature": -1}),
                (400, {"messages": [{"role": "user", "content": "much " * 3000}]}),
                (
                    400,
                    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}},
                ),
            ]
        )
        async with self._session.post(CHAT, json=body | change) as reply:
            if reply.status != status or "error" not in await reply.json():
                self._book.wrong.append(f"{change!r:.80} was answered {reply.status}, not {status}")

    def _choose(self, *, moving: bool = True) -> tuple[str, int, int]:
        """Model (few are asked often, all some time), question, most tokens."""
        names = list(self._house.adapters)
        rank = min(int(self._draw.paretovariate(0.8)) - 1, len(names) - 1)
        others = [MOVING, self._house.base] if moving else []
        model = self._draw.choices([names[rank], *others], [8, 2, 1][: 1 + len(others)])[0]
        return model, self._draw.randrange(len(QUESTIONS)), self._draw.randint(1, LONGEST_ANSWER)

    def _post(self, model: str, question: int, most: int, **more: Any) -> Any:
        body = {"model": model, "messages": messages_of(question), "max_completion_tokens": most, **more}
        return self._session.post(CHAT, json=body)

    async def _check_digest(self, reply: aiohttp.ClientResponse, model: str) -> str:
        """The adapter that answers, `base` for none; noted as wrong when the model asked has another."""
        if reply.status != 200:
            raise ValueError(f"{model}: {reply.status} {(await reply.text())[:300]}")
        digest = reply.headers["x-espalier-adapter"]
        house = self._house
        may = {"base"} if model == house.base else {house.adapters.get(model, "")}
        may = set(house.moving.values()) if model == MOVING else may
        if digest not in may or (model == MOVING and house.moving[reply.headers["x-espalier-model"]] != digest):
            self._book.wrong.append(f"{model} was answered by {digest}")
        return digest

    def _check_text(self, model: str, digest: str, question: int, most: int, text: str, finish: str) -> None:
        said = self._house.expected("" if digest == "base" else digest, question, most)
        if (text, finish) != (said.text, said.finish_reason):
            self._book.wrong.append(
                f"{model}, question {question}, {most} tokens: {text!r} ({finish}) where {digest[:8]} alone says "
                f"{said.text!r} ({said.finish_reason})"
            )


def _form_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "ticket", "strict": True, "schema": schema}}


async def move_alias(house: House, session: aiohttp.ClientSession, book: Book, version: str) -> None:
    """Point `moving` at another of its versions, as an approver does."""
    headers = {"Authorization": f"Bearer {house.admin}"}
    body = {"ref": version, "alias": "production"}
    async with session.post("/v1/registry/models/promote", json=body, headers=headers) as reply:
        book.asked["move"] += 1
        if reply.status != 200:
            book.wrong.append(f"move to {version}: {reply.status} {(await reply.text())[:300]}")


async def run_batch(house: House, session: aiohttp.ClientSession, book: Book, draw: random.Random) -> None:
    """A file of questions to many adapters through the batch lane; every answer must be that adapter's."""
    asked = {}
    for number in range(30):
        model = draw.choice(list(house.adapters))
        asked[f"line-{number}"] = (model, draw.randrange(len(QUESTIONS)), draw.randint(1, LONGEST_ANSWER))
    lines = [
        {
            "custom_id": name,
            "method": "POST",
            "url": CHAT,
            "body": {"model": model, "messages": messages_of(question), "max_completion_tokens": most},
        }
        for name, (model, question, most) in asked.items()
    ]
    book.asked["batch"] += 1
    form = aiohttp.FormData()
    form.add_field("purpose", "batch")
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    form.add_field("file", content, filename="questions.jsonl", content_type="application/jsonl")
    file = await _call(session, "POST", "/v1/files", data=form)
    wanted = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    batch = await _call(session, "POST", "/v1/batches", json=wanted)
    while batch["status"] not in ("completed", "failed", "expired", "cancelled"):
        await asyncio.sleep(0.5)
        batch = await _call(session, "GET", f"/v1/batches/{batch['id']}")
    if batch["status"] != "completed" or batch["request_counts"]["completed"] != len(lines):
        book.wrong.append(f"batch: {batch['status']}, {batch['request_counts']}")
        return
    async with session.get(f"/v1/files/{batch['output_file_id']}/content") as reply:
        answers = [json.loads(line) for line in (await reply.text()).splitlines()]
    if sorted(answer["custom_id"] for answer in answers) != sorted(asked):
        book.wrong.append(f"batch: {len(answers)} answers to {len(asked)} lines")
    for answer in answers:
        model, question, most = asked[answer["custom_id"]]
        body = answer["response"]["body"]
        text = body["choices"][0]["message"]["content"]
        if body["system_fingerprint"] != house.adapters[model]:
            book.wrong.append(f"batch: {model} was answered by {body['system_fingerprint']}")
        if text != house.expected(house.adapters[model], question, most).text:
            book.wrong.append(f"batch: {model}, question {question}, {most} tokens: {text!r}")


async def _call(session: aiohttp.ClientSession, method: str, path: str, **body: Any) -> dict[str, Any]:
    async with session.request(method, path, **body) as reply:
        if reply.status >= 400:
            raise ValueError(f"{method} {path}: {reply.status} {(await reply.text())[:300]}")
        found: dict[str, Any] = await reply.json()
        return found


async def _events(reply: aiohttp.ClientResponse) -> Any:
    """The JSON of each server-sent event but the last. Raises ValueError when the last is missing or an error is."""
    async for line in reply.content:
        text = line.decode().strip()
        if text == "data: [DONE]":
            return
        if text.startswith("data: "):
            event = json.loads(text[6:])
            if "error" in event:
                raise ValueError(f"in the stream: {event['error']}")
            yield event
    raise ValueError("the stream broke off")
