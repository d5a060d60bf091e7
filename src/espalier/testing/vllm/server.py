"""The double's routes, as vLLM answers them; a request vLLM does not document is remembered as a violation."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from espalier.core.errors import EspalierError
from espalier.serve.answer import Detokenizer, StopFilter
from espalier.testing.vllm.model import AdapterFault, Chosen, Lora, Model, Sequence
from espalier.testing.vllm.schema import CompletionRequest, LoadAdapter, Tokenize, UnloadAdapter, explain

Body = TypeVar("Body", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PUBLIC = ("/health", "/ping", "/load", "/version", "/metrics")
_MAX_LOGPROBS = 20
_HELD_AT_TOKENS = 16  # enough that some of their text is told


@dataclass(slots=True)
class VllmSettings:
    """What `vllm serve` was told."""

    folder: Path
    name: str
    key: str = ""
    max_model_len: int = 0  # 0 = the base's
    max_lora_rank: int = 16
    runtime_loras: bool = True
    priorities: bool = True
    prompt_details: bool = True


@dataclass(slots=True)
class _Answer:
    """One answer and what was said of it."""

    sequence: Sequence
    text: Detokenizer
    stop: StopFilter
    tokens: int = 0
    done: bool = False


class VllmDouble:
    """The running double. `aborted` counts requests whose client left; `trouble` is answered to the next ones."""

    def __init__(self, settings: VllmSettings, model: Model | None = None) -> None:
        self.url = ""
        self.settings = settings
        self.requests: list[CompletionRequest] = []
        self.violations: list[str] = []
        self.loras: dict[str, Lora] = {}
        self.under_way: Counter[str] = Counter()  # by model
        self.aborted = 0
        self.trouble: list[tuple[int, dict[str, str]]] = []
        self.gate = threading.Event()  # while it is not set, no answer goes beyond its first tokens
        self.gate.set()
        self._model = model or Model(settings.folder)
        self.context_tokens = settings.max_model_len or self._model.context_tokens

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._authenticate], client_max_size=64 << 20)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/tokenize", self._tokenize)
        if self.settings.runtime_loras:
            app.router.add_post("/v1/load_lora_adapter", self._load)
            app.router.add_post("/v1/unload_lora_adapter", self._unload)
        return app

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        key = request.headers.get("Authorization", "")
        if request.path not in _PUBLIC and self.settings.key and key != f"Bearer {self.settings.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return _fault(404, "Not Found", "NotFoundError")

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.Response:
        labels = f'{{engine="0",model_name="{self.settings.name}"}}'
        gauges = {
            "vllm:num_requests_running": self.under_way.total(),
            "vllm:num_requests_waiting": 0,
            "vllm:kv_cache_usage_perc": 0,
        }
        lines = [f"# TYPE {name} gauge\n{name}{labels} {float(value)}" for name, value in gauges.items()]
        return web.Response(text="\n".join(lines) + "\n")

    async def _models(self, request: web.Request) -> web.Response:
        cards = [self._card(self.settings.name, str(self.settings.folder), None, self.context_tokens)]
        cards += [self._card(name, lora.folder, self.settings.name, None) for name, lora in self.loras.items()]
        return web.json_response({"object": "list", "data": cards})

    def _card(self, name: str, root: str, parent: str | None, longest: int | None) -> dict[str, Any]:
        return {
            "id": name, "object": "model", "created": 0, "owned_by": "vllm", "root": root, "parent": parent,
            "max_model_len": longest, "permission": [],
        }  # fmt: skip

    async def _tokenize(self, request: web.Request) -> web.Response:
        call, refusal = await self._read(request, Tokenize)
        if call is None:
            return refusal
        backend = self._model.tokenizer.backend
        tokens = backend.encode(call.prompt, add_special_tokens=call.add_special_tokens).ids
        return web.json_response(
            {"count": len(tokens), "max_model_len": self.context_tokens, "tokens": tokens, "token_strs": None}
        )

    async def _load(self, request: web.Request) -> web.Response:
        call, refusal = await self._read(request, LoadAdapter)
        if call is None:
            return refusal
        if call.lora_name in self.loras and not call.load_inplace:
            return _fault(400, f"The lora adapter '{call.lora_name}' has already been loaded.", "InvalidUserInput")
        try:
            self.loras[call.lora_name] = self._model.read_lora(call.lora_path, self.settings.max_lora_rank)
        except AdapterFault as error:
            return _fault(error.status, str(error), "NotFoundError" if error.status == 404 else "InternalServerError")
        return web.Response(text=f"Success: LoRA adapter '{call.lora_name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        call, refusal = await self._read(request, UnloadAdapter)
        if call is None:
            return refusal
        if call.lora_name not in self.loras:
            return _fault(404, f"The lora adapter '{call.lora_name}' cannot be found.", "NotFoundError")
        if self.under_way[call.lora_name]:  # vLLM does not wait; the answers would go on under nobody knows what
            self.violations.append("an adapter was unloaded while answers were under way")
        del self.loras[call.lora_name]
        return web.Response(text=f"Success: LoRA adapter '{call.lora_name}' removed successfully.")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        call, refusal = await self._read(request, CompletionRequest)
        if call is None:
            return refusal
        if self.trouble:
            status, headers = self.trouble.pop(0)
            return _fault(status, "scripted trouble", "ServiceUnavailableError", headers)
        if call.model not in (self.settings.name, *self.loras):
            return _fault(404, f"The model `{call.model}` does not exist.", "NotFoundError", param="model")
        if isinstance(call.prompt, str) or not call.stream:
            self.violations.append("a prompt as text, or an answer in one piece, which we never ask for")
            return _fault(400, "this double takes ids and streams", "BadRequestError")
        wrong = self._check(call, call.prompt)
        if wrong:
            return _fault(400, wrong, "BadRequestError")
        self.requests.append(call)
        try:
            sequences = [
                self._model.begin(call.prompt, call, self.loras.get(call.model), number) for number in range(call.n)
            ]
        except ValueError as error:
            return _fault(400, str(error), "BadRequestError")
        return await self._stream(request, call, sequences)

    def _check(self, call: CompletionRequest, prompt: list[int]) -> str:
        """What vLLM's input processor says."""
        asked = len(prompt) + (call.max_tokens or 0)
        strange = [id for id in [*prompt, *map(int, call.logit_bias or {})] if id >= self._model.vocabulary]
        if strange:
            self.violations.append(f"token id {strange[0]} is out of vocabulary")
            return f"Token id {strange[0]} is out of vocabulary"
        if asked > self.context_tokens:
            return (
                f"This model's maximum context length is {self.context_tokens} tokens. However, you requested {asked}"
            )
        if (call.logprobs or 0) > _MAX_LOGPROBS:
            return f"Requested sample logprobs of {call.logprobs}, which is greater than max allowed: {_MAX_LOGPROBS}"
        if call.priority and not self.settings.priorities:
            return "Got priority but Priority scheduling is not enabled."
        return ""

    async def _stream(
        self, request: web.Request, call: CompletionRequest, sequences: list[Sequence]
    ) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        self.under_way[call.model] += 1
        try:
            await reply.prepare(request)
            async for chunk in self._chunks(call, sequences):
                await reply.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await reply.write(b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.aborted += 1
            raise
        finally:
            self.under_way[call.model] -= 1
        return reply

    async def _chunks(self, call: CompletionRequest, sequences: list[Sequence]) -> AsyncIterator[dict[str, Any]]:
        answers = [_Answer(each, Detokenizer(self._model.tokenizer), StopFilter(call.stops)) for each in sequences]
        head = {"id": f"cmpl-{call.request_id or secrets.token_hex(8)}", "object": "text_completion", "created": 0}
        head |= {"model": call.model}
        options = call.stream_options
        prompt_tokens = sequences[0].prompt_tokens
        while any(not answer.done for answer in answers):
            for index, answer in enumerate(answers):
                if answer.done:
                    continue
                while answer.tokens >= _HELD_AT_TOKENS and not self.gate.is_set():
                    await asyncio.sleep(0.005)
                chosen = await asyncio.to_thread(self._model.step, answer.sequence)
                chunk = head | {"choices": [{"index": index, **self._say(call, answer, chosen)}]}
                if options and options.continuous_usage_stats:
                    chunk["usage"] = _usage(prompt_tokens, answer.tokens)
                yield chunk
        if options and options.include_usage:
            usage = _usage(prompt_tokens, sum(answer.tokens for answer in answers))
            if self.settings.prompt_details:
                usage["prompt_tokens_details"] = {"cached_tokens": 0}
            yield head | {"choices": [], "usage": usage}

    def _say(self, call: CompletionRequest, answer: _Answer, chosen: Chosen) -> dict[str, Any]:
        """A choice of a chunk: what the new token makes certain, and whether it is the last."""
        answer.tokens += 1
        reason: str | None = None
        stop_reason: int | str | None = None
        text = ""
        if chosen.id in self._model.eos_ids and not call.ignore_eos:
            reason = "stop"
        elif chosen.id in (call.stop_token_ids or []):
            reason, stop_reason = "stop", chosen.id
        else:
            text = answer.stop.add(answer.text.add(chosen.id))
            if answer.stop.stopped:
                reason, stop_reason = "stop", next(stop for stop in call.stops)
            elif answer.tokens == call.max_tokens:
                reason = "length"
        if reason and not answer.stop.stopped:
            text += answer.stop.add(answer.text.flush()) + answer.stop.flush()
        answer.done = reason is not None
        logprobs = _encode_logprobs(call, chosen, self._model) if call.logprobs is not None else None
        return {
            "text": text, "logprobs": logprobs, "finish_reason": reason, "stop_reason": stop_reason,
            "prompt_token_ids": None, "token_ids": [chosen.id] if call.return_token_ids else None,
        }  # fmt: skip

    async def _read(self, request: web.Request, kind: type[Body]) -> tuple[Body | None, web.Response]:
        """(the request, _) or (None, its refusal)."""
        if request.content_type != "application/json":
            wrong, param = "Unsupported Media Type: Only 'application/json' is allowed", ""
        else:
            try:
                return kind.model_validate_json(await request.read()), web.Response()
            except ValidationError as error:
                wrong, param = explain(error)
        if "stream" not in param:
            self.violations.append(wrong)
        return None, _fault(400, wrong, "BadRequestError", param=param)


@contextmanager
def serve_vllm(settings: VllmSettings, model: Model | None = None) -> Iterator[VllmDouble]:
    """A running double on a free loopback port. Leaving raises EspalierError when a request broke the contract."""
    double = VllmDouble(settings, model)
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(double.app(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        double.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    runner = loop.run_until_complete(start())
    loop.call_soon(ready.set)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield double
    finally:
        double.gate.set()
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.run_in_executor(None, lambda: None)
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    if double.violations:
        raise EspalierError(f"a request broke vLLM's contract: {double.violations[0]}")


def _encode_logprobs(call: CompletionRequest, chosen: Chosen, model: Model) -> dict[str, Any]:
    def spell(id: int) -> str:
        return f"token_id:{id}" if call.return_tokens_as_token_ids else model.tokenizer.decode([id], skip_special=False)

    top = {spell(id): value for id, value in chosen.logprobs}
    return {
        "text_offset": [0], "tokens": [spell(chosen.id)], "token_logprobs": [chosen.logprobs[0][1]],
        "top_logprobs": [top],
    }  # fmt: skip


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def _fault(
    status: int, message: str, kind: str, headers: dict[str, str] | None = None, param: str | None = None
) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": param, "code": status}}
    return web.json_response(body, status=status, headers=headers)
