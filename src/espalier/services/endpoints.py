"""An OpenAI-compatible endpoint as a `Generate`: many requests in flight, patience with those that are too busy.

A request that is refused for what it says (400, 413, 422) is an answer of kind `error`, as it concerns that question
alone. One that is refused for who asks or of whom (401, 403, 404), or for a spent quota, ends the work. 408, 409, 429,
5xx and lost connections are tried again, after what `Retry-After` says or a pause that doubles.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espalier import __version__
from espalier.core.errors import BudgetExceeded, EspalierError, Interrupted, InvalidInput, RateLimited, Unavailable
from espalier.core.types import Generation, Message, SamplingSpec, Usage
from espalier.data.generate.spec import ModelSpec
from espalier.wire.openai.failure import decode_error
from espalier.wire.openai.logprobs import decode_prompt_logprobs, encode_prompt_logprobs
from espalier.wire.openai.request import ChatCall, encode_chat
from espalier.wire.openai.response import decode_completion
from espalier.wire.retryafter import read_wait_s

if TYPE_CHECKING:
    import aiohttp

_ABOUT_THE_QUESTION = {400, 413, 422}
_TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_LONGEST_PAUSE_S = 60.0
_LARGEST_ANSWER_BYTES = 16 << 20
_SHOWN_CHARS = 300
_USUAL = SamplingSpec()
# Sent only where they ask for something: not every endpoint knows them.
_ALSO = (
    "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs", "format",
    "ignore_end",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked of an endpoint, and how its answer is read."""

    path: str
    body: dict[str, Any]
    decode: Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class _Busy:
    """An error that may pass, and how many seconds the endpoint asks to wait."""

    error: EspalierError
    wanted_s: float = 0.0


@contextmanager
def open_endpoint(model: ModelSpec, environ: Mapping[str, str] | None = None) -> Iterator[Endpoint]:
    """The endpoint a recipe names; leaving cancels whatever is in flight. Raises InvalidInput without its key."""
    endpoint = Endpoint(model, _find_key(model, os.environ if environ is None else environ))
    try:
        yield endpoint
    finally:
        endpoint.close()


class Endpoint:
    """A `Generate`. Any number of threads may call it; at most `model.concurrency` requests are in flight."""

    def __init__(self, model: ModelSpec, key: str) -> None:
        self._model = model
        self._key = key
        self._patience_s = model.timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        self._places = asyncio.Semaphore(model.concurrency)
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def __call__(self, batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]:
        """One answer each, in order. Raises Unauthenticated, NotFound, RateLimited, Unavailable ..., Interrupted."""
        answers: list[Generation] = self._run(self._answer_all(batch, sampling))
        return answers

    def top_logprobs(self, batch: Sequence[Sequence[int]], k: int) -> list[list[dict[int, float]]]:
        """See `core.ports.TellLogprobs`. Raises InvalidInput where the endpoint does not tell them; else as calling."""
        told: list[list[dict[int, float]]] = self._run(self._tell_all(batch, k))
        return told

    def close(self) -> None:
        """End the requests in flight; those who wait for them get Interrupted."""
        if not self._thread.is_alive():
            return
        self._run(self._hang_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        if not self._thread.is_alive():
            work.close()
            raise Interrupted("the endpoint is closed", hint="run it again: answers that came are kept")
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except concurrent.futures.CancelledError:
            raise Interrupted("stopped", hint="run it again: answers that came are kept") from None

    async def _hang_up(self) -> None:
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _answer_all(self, batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]:
        bodies = [self._encode(messages, sampling) for messages in batch]
        return await self._ask_all([_Request("chat/completions", body, _decode_answer) for body in bodies])

    async def _tell_all(self, batch: Sequence[Sequence[int]], k: int) -> list[list[dict[int, float]]]:
        bodies = [encode_prompt_logprobs(self._model.model, ids, k) for ids in batch]
        told = await self._ask_all([_Request("completions", body, decode_prompt_logprobs) for body in bodies])
        for answer in told:
            if isinstance(answer, Generation):  # the endpoint's refusal of what was asked
                raise InvalidInput(
                    f"{self._model.endpoint} tells no log-probabilities of a given text: {answer.text}",
                    hint="serve the teacher with vLLM, and set its --max-logprobs to `k` or more",
                )
        return told

    async def _ask_all(self, requests: Sequence[_Request]) -> list[Any]:
        tasks = [asyncio.ensure_future(self._ask(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _ask(self, request: _Request) -> Any:
        """What the endpoint says, decoded; a `Generation` of kind `error` when it refuses what is asked."""
        attempt = 0
        while True:
            async with self._places:
                answer = await self._try(request)
            if not isinstance(answer, _Busy):
                return answer
            if attempt == self._model.retries:
                raise answer.error
            await asyncio.sleep(self._pause_s(attempt, answer.wanted_s))
            attempt += 1

    async def _try(self, request: _Request) -> Any:
        """The answer; or that the endpoint may have one later. Raises what will not pass."""
        import aiohttp

        url = f"{self._model.endpoint}/{request.path}"
        body = json.dumps(request.body, ensure_ascii=False).encode()
        try:
            patience = aiohttp.ClientTimeout(total=self._patience_s)
            async with self._open().post(url, data=body, allow_redirects=False, timeout=patience) as reply:
                content = b"".join([chunk async for chunk in _limit(reply.content.iter_any())])
                status, wanted_s = reply.status, read_wait_s(reply.headers.get("Retry-After", ""))
        except (aiohttp.ClientError, TimeoutError, OSError) as lost:
            told = str(lost) or type(lost).__name__
            return _Busy(Unavailable(f"no answer from {self._model.endpoint}: {told}", hint="is the server there?"))
        if status == 200:
            return self._decode(request, content)
        error = decode_error(status, content)
        if self._key:  # some say it back
            error.message = error.message.replace(self._key, "***")
        if status in _ABOUT_THE_QUESTION:
            return Generation(text=error.message[:_SHOWN_CHARS], finish_reason="error", usage=_no_usage())
        if status not in _TRY_AGAIN or isinstance(error, BudgetExceeded):
            error.where = self._model.endpoint
            raise error
        if not isinstance(error, RateLimited | Unavailable):
            error = Unavailable(f"{self._model.endpoint} answered {status}: {error.message}"[:_SHOWN_CHARS])
        return _Busy(error, wanted_s)

    def _decode(self, request: _Request, content: bytes) -> Any:
        try:
            return request.decode(content)
        except InvalidInput:
            raise
        except EspalierError as error:
            return _Busy(Unavailable(f"{self._model.endpoint}: {error.message}", hint="does its URL end in /v1?"))

    def _encode(self, messages: Sequence[Message], sampling: SamplingSpec) -> dict[str, Any]:
        call = ChatCall(
            model=self._model.model,
            messages=tuple(messages),
            temperature=sampling.temperature,
            top_p=None if sampling.top_p == 1.0 else sampling.top_p,
            seed=sampling.seed,
            stop=sampling.stop,
            **{name: value for name in _ALSO if (value := getattr(sampling, name)) != getattr(_USUAL, name)},
        )
        asks_json = self._model.json_mode and sampling.format is None
        mode = {"response_format": {"type": "json_object"}} if asks_json else {}
        return {**encode_chat(call), self._model.length_field: sampling.max_tokens, **mode}

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            headers = {"Content-Type": "application/json", "User-Agent": f"espalier/{__version__}"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            connector = aiohttp.TCPConnector(limit=self._model.concurrency)
            self._session = aiohttp.ClientSession(headers=headers, connector=connector)
        return self._session

    def _pause_s(self, attempt: int, wanted_s: float) -> float:
        # Jitter, so that those refused together do not come back together; it changes no answer.
        doubled: float = self._model.pause_s * 2**attempt * random.uniform(0.5, 1.0)
        return min(_LONGEST_PAUSE_S, max(doubled, wanted_s))


def _decode_answer(content: bytes) -> Generation:
    _, _, answer = decode_completion(content)
    # Half a surrogate pair, which JSON can spell, is no text: no digest, file or tokenizer can take it.
    text = answer.text.encode("utf-8", "replace").decode()
    return answer.model_copy(update={"text": text})


def _find_key(model: ModelSpec, environ: Mapping[str, str]) -> str:
    if not model.key_env:
        return ""
    key = environ.get(model.key_env, "").strip()
    if not key:
        raise InvalidInput(
            f"the environment variable {model.key_env} is empty", hint=f"export {model.key_env}=..., the endpoint's key"
        )
    return key


async def _limit(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size_bytes = 0
    async for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > _LARGEST_ANSWER_BYTES:
            raise OSError(f"an answer of more than {_LARGEST_ANSWER_BYTES >> 20} MiB")
        yield chunk


def _no_usage() -> Usage:
    return Usage(prompt_tokens=0, completion_tokens=0)
