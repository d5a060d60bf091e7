"""`VllmEngine`: a base and its adapters in vLLM, started here as a child or found at a URL.

What is sent is ids of our own template, and every sampling parameter, so that neither vLLM's template nor a model's
generation_config.json has a say. Adapters are checked here as for the embedded engine, and named by their digests.
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, .../features/lora.html. Knows no registry.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from espalier.core.errors import (
    DigestMismatch,
    EspalierError,
    InvalidInput,
    MissingExtra,
    NotFound,
    Unavailable,
    UnsupportedModel,
)
from espalier.core.ports import ChatRequest, Delta, EngineLoad
from espalier.core.types import ResponseFormat, SamplingSpec, Spec
from espalier.nn.adapterfiles import read_stored
from espalier.nn.base import LoadedBase, outline_base
from espalier.nn.plainadapter import is_uniform, write_uniform
from espalier.serve.asked import check_sampling
from espalier.serve.engines.answers import Answers
from espalier.serve.engines.line import Hung, Line, Refused, Reply
from espalier.serve.engines.metrics import read_gauges
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.process import ServerProcess, find_free_port
from espalier.serve.engines.refusal import explain_refusal, find_key
from espalier.serve.engines.roster import Roster
from espalier.serve.room import check_room
from espalier.serve.shape import Shape, Shaper, shown_tools
from espalier.wire.openai.completions import encode_completion_call

_RESERVED, _INTERACTIVE, _BATCH = 0, 1, 2  # vLLM's priorities: lower is earlier
_HEALTH_S = 5.0
# Spaces, digits, a word of two cases and letters beyond ASCII: where two tokenizers differ, they differ in these.
_PROBE = "The 12 quick\tfoxes  naïvely JUMP — 狐\n<record id='7'>"


class VllmOptions(Spec):
    """`options` of an engine of kind vllm. Those of a child do nothing where a `url` is given."""

    model: str = Field("", description="what a server found at a URL calls the base; empty = what it names first")
    priorities: bool = Field(False, description="a server found at a URL schedules by priority")
    folders: dict[str, str] = Field({}, description="folders of adapters as we see them -> as the server sees them")
    command: tuple[str, ...] = Field((), description="what starts it, before the model's name; empty = `vllm serve`")
    arguments: tuple[str, ...] = Field((), description="further arguments of `vllm serve`")
    max_loras: int = Field(8, ge=1, description="adapters in one step")
    max_cpu_loras: int = Field(128, ge=1, description="adapters kept in memory")
    max_lora_rank: int = Field(64, ge=1, description="largest rank of an adapter")
    start_timeout_s: float = Field(900.0, gt=0, description="how long it may take to load the base")
    stop_grace_s: float = Field(30.0, ge=0, description="how long it may take to end before it is killed")
    idle_timeout_s: float = Field(600.0, gt=0, description="how long it may say nothing on a request")


class VllmEngine:
    """Implements core.ports.ModelEngine. Raises InvalidInput for options that are none, or a key that is missing.

    A server found at a URL stays as it is when this stops, with the adapters that were loaded into it.
    """

    def __init__(self, plan: EnginePlan) -> None:
        self._plan = plan
        self._options = plan.options(VllmOptions)
        self._roster = Roster()
        self._changing = threading.Lock()  # held while it starts or an adapter is loaded; `stop` cuts in
        self._line: Line | None = None
        self._process: ServerProcess | None = None
        self._base: LoadedBase | None = None
        self._shaper: Shaper | None = None
        self._model = ""
        self._found_key = find_key(plan)
        self.context_tokens = plan.serve.max_context_tokens

    def start(self) -> Self:
        """Start vLLM, or look for it; returns when it answers.

        Raises MissingExtra (no vLLM here), Unavailable (it does not come up), DigestMismatch (another tokenizer), and
        what `outline_base` raises.
        """
        with self._changing:
            if self.answering:
                return self
            self.stop()  # what is left of one that died
            self._base = replace(outline_base(self._plan.place), spec=self._plan.base)
            try:
                line = self._reach(self._base)
                self._describe(line)
                self._check_tokenizer(line, self._base)
            except EspalierError:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """Hang up; a child is ended. Answers not finished end as `cancelled`."""
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.stop(self._options.stop_grace_s)
            self._process = None
        self._roster.clear()

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Check the adapter as the embedded engine does, then have vLLM load it under its digest.

        Raises what `read_stored` raises, UnsupportedModel (DoRA, a rank too large), InvalidInput (vLLM refuses it).
        """
        line, base = self._started()
        with self._changing:
            if digest in self._roster.digests():
                return
            theirs = self._translate(self._place_adapter(digest, folder, base))
            reply = line.call("POST", "/v1/load_lora_adapter", {"lora_name": digest, "lora_path": theirs})
            if reply.status != 200 and not self._stands(line, digest, theirs):
                raise _explain_load(reply)
            self._roster.add(digest, digest)

    def unload_adapter(self, digest: str) -> None:
        """Take no new request for it, wait for those under way, have vLLM let it go. Raises NotFound, Conflict."""
        line = self._line

        def let_go(name: str) -> None:
            if line is None or not self.answering:
                return  # it went with the server
            reply = line.call("POST", "/v1/unload_lora_adapter", {"lora_name": name})
            if reply.status not in (200, 404):  # 404: it has gone already
                raise explain_refusal(reply)
            shutil.rmtree(self._own_copy(digest), ignore_errors=True)

        self._roster.drain(digest, let_go)

    def list_adapters(self) -> list[str]:
        """Digests that may be asked."""
        return self._roster.digests()

    def load(self) -> EngineLoad:
        """What vLLM's /metrics say of all its requests; of tokens and of waiting, what is known of those from here."""
        line, _ = self._started()
        try:
            gauges = read_gauges(line.call("GET", "/metrics", timeout_s=_HEALTH_S))
        except Unavailable:
            gauges = {}
        running, waiting = gauges.get("vllm:num_requests_running"), gauges.get("vllm:num_requests_waiting")
        return self._roster.load(
            running=None if running is None else round(running), waiting=None if waiting is None else round(waiting)
        )

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """Exact: the prompt's ids are ours. What cannot be answered is refused here already."""
        self._shape(request)
        return len(self._encode(request))

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Answer one request in pieces; the last carries finish reason and usage. Closing the iterator cancels it.

        Raises InvalidInput (context, sampling), NotFound (base, adapter), Conflict (adapter going), RateLimited,
        Unavailable (not started, gone, busy).
        """
        line, base = self._started()
        if request.base not in ("", base.spec, base.base_digest):
            raise NotFound(f"base {request.base} is not loaded", hint=f"this engine holds {base.spec}")
        prompt, sampling = self._encode(request), request.sampling
        check_room(len(prompt), sampling.max_tokens, self.context_tokens)
        shape = await asyncio.to_thread(self._shape, request)
        answers = Answers(sampling, base, shape)
        with self._roster.visit(request.adapter, len(prompt) + sampling.max_tokens * sampling.n) as (visit, name):
            body = encode_completion_call(
                name or self._model,
                prompt,
                _with_calls(sampling, shape),
                end_ids=base.eos_ids,
                priority=self._priority(request),
                request=f"{request.id}-{secrets.token_hex(4)}",  # vLLM refuses an id it still knows
            )
            try:
                async with aclosing(line.stream("/v1/completions", body)) as lines:  # type: ignore[type-var]
                    async for said in lines:
                        for delta in answers.read(said):
                            visit.begun = True
                            yield self._sign(delta, answers.model, request.adapter)
                        if answers.done:
                            return
            except Refused as refused:
                raise explain_refusal(refused.reply) from None
            except Hung:
                for delta in answers.cancel():
                    yield delta
                return
        raise Unavailable("vLLM ended an answer before its end", hint="ask again; its log says why")

    @property
    def answering(self) -> bool:
        """Whether it may be asked: it was started, and a child has not died."""
        alive = self._process is None or self._process.running
        return self._line is not None and self._line.is_open and alive

    def _priority(self, request: ChatRequest) -> int:
        if not self._options.priorities and self._plan.engine.url:
            return 0  # all that a server without priorities takes
        if request.lane == "batch":
            return _BATCH
        return _RESERVED if request.reservation else _INTERACTIVE

    def _sign(self, delta: Delta, answered: str, adapter: str) -> Delta:
        """With the digest its tokens were computed under, as vLLM says. Raises EspalierError when it is another's."""
        if answered != (adapter or self._model):
            raise EspalierError(f"vLLM answered with {answered[:80]}, {adapter[:12] or self._model} was asked")
        return replace(delta, adapter=adapter) if delta.finish_reason else delta

    def _started(self) -> tuple[Line, LoadedBase]:
        if self._line is None or self._base is None or not self.answering:
            raise Unavailable("the engine is not running", hint="ask again when it is, or ask another process")
        return self._line, self._base

    def _encode(self, request: ChatRequest) -> list[int]:
        _, base = self._started()
        return base.tokenizer.encode_prompt(request.messages, tools=shown_tools(request))

    def _shape(self, request: ChatRequest) -> Shape:
        """What the answers are made of. Raises InvalidInput where they could not be so."""
        _, base = self._started()
        check_sampling(request.sampling, base.tokenizer.size)
        if self._shaper is None:
            self._shaper = Shaper(base.tokenizer, base.eos_ids)
        return self._shaper.shape(request)

    def _reach(self, base: LoadedBase) -> Line:
        """An open line to a server that is healthy."""
        if self._plan.engine.url:
            line = Line(_root(self._plan.engine.url), key=self._found_key, idle_s=self._options.idle_timeout_s)
            line.open()
            self._line = line
            if not _is_healthy(line):
                raise Unavailable(f"vLLM at {line.url} is not ready", hint="start it, or correct the engine's url")
            return line
        port, key = find_free_port(), secrets.token_urlsafe(32)
        line = Line(f"http://127.0.0.1:{port}", key=key, idle_s=self._options.idle_timeout_s)
        line.open()
        self._line = line
        self._process = ServerProcess(self._command(base, port), _environ(key), self._plan.folder)
        self._process.start()
        self._process.wait(lambda: _is_healthy(line), self._options.start_timeout_s)
        return line

    def _command(self, base: LoadedBase, port: int) -> list[str]:
        options = self._options
        return [
            *(options.command or _find_command()), str(base.path),
            "--host", "127.0.0.1", "--port", str(port), "--served-model-name", self._plan.base,
            "--max-model-len", str(min(self._plan.serve.max_context_tokens, base.context_tokens)),
            "--generation-config", "vllm", "--scheduling-policy", "priority", "--enable-prompt-tokens-details",
            "--structured-outputs-config.backend", "guidance",
            "--enable-lora", "--max-loras", str(options.max_loras), "--max-lora-rank", str(options.max_lora_rank),
            "--max-cpu-loras", str(max(options.max_loras, options.max_cpu_loras)),
            *options.arguments,
        ]  # fmt: skip

    def _describe(self, line: Line) -> None:
        """Learn what the server calls the base, and how long a context it has."""
        cards = [card for card in _list_models(line) if not card.get("parent")]
        wanted = self._options.model or (self._plan.base if not self._plan.engine.url else "")
        card = next((card for card in cards if wanted in ("", card.get("id"))), None)
        if card is None:
            raise NotFound(
                f"vLLM at {line.url} serves no {wanted}", hint=f"it serves {[card.get('id') for card in cards]}"
            )
        self._model = str(card["id"])
        longest = card.get("max_model_len")
        if isinstance(longest, int):
            self.context_tokens = min(self._plan.serve.max_context_tokens, longest)

    def _check_tokenizer(self, line: Line, base: LoadedBase) -> None:
        """Raises DigestMismatch when the server cuts text into other ids than the base's tokenizer here."""
        reply = line.call("POST", "/tokenize", {"model": self._model, "prompt": _PROBE, "add_special_tokens": False})
        if reply.status != 200:
            raise InvalidInput(
                f"{line.url} does not tokenise: {explain_refusal(reply).message}", hint="is it vLLM? kind openai else"
            )
        if json.loads(reply.content).get("tokens") != base.tokenizer.encode(_PROBE):
            raise DigestMismatch(
                f"vLLM at {line.url} has another tokenizer than {base.spec} here",
                hint="serve the very files of this base, or name the base it serves",
            )

    def _place_adapter(self, digest: str, folder: Path, base: LoadedBase) -> Path:
        """The folder vLLM is to read: the adapter's own, or a copy in the form every vLLM understands."""
        stored = read_stored(folder, base)
        rank = max(layer.a.shape[0] for layer in stored.layers.values())
        head = base.model.get_output_embeddings()
        if stored.spec.dora or any(base.model.get_submodule(name) is head for name in stored.layers):
            raise UnsupportedModel(
                "vLLM serves no DoRA and no adapter on a base's head",
                where=str(folder),
                hint="merge it and serve the result: `espalier adapter merge`",
            )
        if not self._plan.engine.url and rank > self._options.max_lora_rank:
            raise UnsupportedModel(
                f"the adapter's rank is {rank}, vLLM was started for {self._options.max_lora_rank}",
                where=str(folder),
                hint=f"set {self._plan.where}.options.max_lora_rank",
            )
        if is_uniform(stored):
            return folder
        write_uniform(self._own_copy(digest), stored, base)
        return self._own_copy(digest)

    def _own_copy(self, digest: str) -> Path:
        return self._plan.folder / "adapters" / digest

    def _translate(self, folder: Path) -> str:
        path = str(folder.resolve())
        for ours, theirs in self._options.folders.items():
            if path.startswith(ours.rstrip("/") + "/"):
                return theirs.rstrip("/") + path[len(ours.rstrip("/")) :]
        return path

    def _stands(self, line: Line, digest: str, place: str) -> bool:
        """Whether vLLM holds this very adapter already: one of us loaded it before."""
        return any(card.get("id") == digest and card.get("root") == place for card in _list_models(line))


def _with_calls(sampling: SamplingSpec, shape: Shape) -> SamplingSpec:
    """With the grammar of calls as the answer's form, where calls must come or must keep to their schemas."""
    if not shape.written:
        return sampling
    return sampling.model_copy(update={"format": ResponseFormat(kind="grammar", text=shape.written)})


def _is_healthy(line: Line) -> bool:
    try:
        return line.call("GET", "/health", timeout_s=_HEALTH_S).status == 200
    except Unavailable:
        return False


def _list_models(line: Line) -> list[dict[str, Any]]:
    reply = line.call("GET", "/v1/models")
    if reply.status != 200:
        raise explain_refusal(reply)
    cards = json.loads(reply.content).get("data", [])
    return [card for card in cards if isinstance(card, dict)]


def _explain_load(reply: Reply) -> EspalierError:
    error = explain_refusal(reply)
    if reply.status == 404 and error.message == "Not Found":
        return InvalidInput(
            "this vLLM loads no adapters at run time",
            hint="start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
        )
    if reply.status in (401, 403, 502, 503, 504):
        return error
    return InvalidInput(f"vLLM does not take the adapter: {error.message}", hint="its log says more")


def _root(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")


def _environ(key: str) -> dict[str, str]:
    """Ours, and: its key, adapters at run time, and not a word to anyone else."""
    return os.environ | {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _find_command() -> tuple[str, ...]:
    beside = Path(sys.executable).with_name("vllm")
    found = str(beside) if beside.exists() else shutil.which("vllm")
    if found is None:
        raise MissingExtra(
            "vLLM is not installed here",
            hint="pip install 'espalier[vllm]', or give `command`, or the url of one that runs",
        )
    return (found, "serve")
