"""`VllmServer`: a vLLM that answers, started here as a child or found at a URL, and its routes for adapters.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, .../features/lora.html. Its runtime routes would
load any folder for whoever may reach them: a child listens on loopback only, under a key made for it alone. Knows no
request of a client.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from espalier.core.errors import DigestMismatch, EspalierError, InvalidInput, MissingExtra, NotFound, Unavailable
from espalier.core.types import Spec
from espalier.nn.base import LoadedBase
from espalier.serve.engines.line import Line, Reply
from espalier.serve.engines.metrics import read_gauges
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.process import ServerProcess, find_free_port
from espalier.serve.engines.refusal import explain_refusal, find_key
from espalier.serve.environment import share_environment

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
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = Field(64, description="largest rank of an adapter")
    start_timeout_s: float = Field(900.0, gt=0, description="how long it may take to load the base")
    stop_grace_s: float = Field(30.0, ge=0, description="how long it may take to end before it is killed")
    idle_timeout_s: float = Field(600.0, gt=0, description="how long it may say nothing on a request")


class VllmServer:
    """For one base; `open` before use. `model` is what it calls that base, `context_tokens` the longest it takes.

    Raises MissingExtra where there is no vLLM to start, InvalidInput for a key that is missing.
    """

    def __init__(self, plan: EnginePlan, options: VllmOptions, base: LoadedBase) -> None:
        self._plan = plan
        self._options = options
        self.process: ServerProcess | None = None
        port, key = find_free_port(), secrets.token_urlsafe(32)
        url = plan.engine.url.rstrip("/").removesuffix("/v1") or f"http://127.0.0.1:{port}"
        self.line = Line(url, key=find_key(plan) if plan.engine.url else key, idle_s=options.idle_timeout_s)
        if not plan.engine.url:
            command = _command(plan, options, base, port)
            self.process = ServerProcess(command, _environ(key), plan.folder)
        self.model = ""
        self.context_tokens = plan.serve.max_context_tokens
        self._base = base

    def open(self) -> None:
        """Return when it answers.

        Raises Unavailable (it does not come up), NotFound (it serves no such model), DigestMismatch (another
        tokenizer), InvalidInput (it is no vLLM).
        """
        self.line.open()
        if self.process is not None:
            self.process.start()
            self.process.wait(self._is_healthy, self._options.start_timeout_s)
        elif not self._is_healthy():
            raise Unavailable(f"vLLM at {self.line.url} is not ready", hint="start it, or correct the engine's url")
        self._describe()
        self._check_tokenizer()

    def close(self) -> None:
        """Hang up; a child is ended, one found at a URL is left as it is."""
        self.line.close()
        if self.process is not None:
            self.process.stop(self._options.stop_grace_s)

    @property
    def answering(self) -> bool:
        """Whether it may be asked: the line is open, and a child has not died."""
        return self.line.is_open and (self.process is None or self.process.running)

    @property
    def has_priorities(self) -> bool:
        """Whether it takes other priorities than 0."""
        return self.process is not None or self._options.priorities

    def load_adapter(self, name: str, folder: Path) -> None:
        """Have it read `folder` as `name`; nothing where it has already. Raises InvalidInput, Unavailable."""
        place = self._translate(folder)
        reply = self.line.call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": place})
        stands = reply.status != 200 and any(
            (card.get("id"), card.get("root")) == (name, place) for card in self._list_models()
        )
        if reply.status != 200 and not stands:
            raise _explain_load(reply)

    def unload_adapter(self, name: str) -> None:
        """Have it let go of `name`; nothing where it has gone already. Raises Unavailable."""
        reply = self.line.call("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        if reply.status not in (200, 404):
            raise explain_refusal(reply)

    def count_requests(self) -> tuple[int | None, int | None]:
        """(running, waiting) of all its requests; None where it does not tell."""
        try:
            gauges = read_gauges(self.line.call("GET", "/metrics", timeout_s=_HEALTH_S))
        except Unavailable:
            return None, None
        running, waiting = (gauges.get(f"vllm:num_requests_{state}") for state in ("running", "waiting"))
        return None if running is None else round(running), None if waiting is None else round(waiting)

    def _is_healthy(self) -> bool:
        try:
            return self.line.call("GET", "/health", timeout_s=_HEALTH_S).status == 200
        except Unavailable:
            return False

    def _list_models(self) -> list[dict[str, Any]]:
        reply = self.line.call("GET", "/v1/models")
        if reply.status != 200:
            raise explain_refusal(reply)
        try:
            cards = json.loads(reply.content)["data"]
            return [card | {"id": str(card["id"])} for card in cards]
        except (ValueError, LookupError, TypeError):
            raise self._stranger() from None

    def _describe(self) -> None:
        """Learn what the server calls the base, and how long a context it has."""
        cards = [card for card in self._list_models() if not card.get("parent")]
        wanted = self._options.model or (self._plan.base if self.process is not None else "")
        card = next((card for card in cards if wanted in ("", card["id"])), None)
        if card is None:
            known = ", ".join(card["id"] for card in cards)
            raise NotFound(f"vLLM at {self.line.url} serves no {wanted}", hint=f"it serves {known}")
        self.model = card["id"]
        longest = card.get("max_model_len")
        if isinstance(longest, int):
            self.context_tokens = min(self.context_tokens, longest)

    def _check_tokenizer(self) -> None:
        """Raises DigestMismatch when it cuts text into other ids than the base's tokenizer here."""
        asked = {"model": self.model, "prompt": _PROBE, "add_special_tokens": False}
        reply = self.line.call("POST", "/tokenize", asked)
        if reply.status != 200:
            told = explain_refusal(reply).message
            raise InvalidInput(f"{self.line.url} does not tokenise: {told}", hint="is it vLLM? kind openai else")
        try:
            tokens = json.loads(reply.content)["tokens"]
        except (ValueError, LookupError, TypeError):
            raise self._stranger() from None
        if tokens != self._base.tokenizer.encode(_PROBE):
            raise DigestMismatch(
                f"vLLM at {self.line.url} has another tokenizer than {self._base.spec} here",
                hint="serve the very files of this base, or name the base it serves",
            )

    def _stranger(self) -> InvalidInput:
        return InvalidInput(
            f"{self.line.url} does not answer as vLLM does",
            where=f"{self._plan.where}.url",
            hint="correct the url, or say kind openai where it is another server of OpenAI's API",
        )

    def _translate(self, folder: Path) -> str:
        path = str(folder.resolve())
        for ours, theirs in self._options.folders.items():
            if path.startswith(ours.rstrip("/") + "/"):
                return theirs.rstrip("/") + path[len(ours.rstrip("/")) :]
        return path


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


def _command(plan: EnginePlan, options: VllmOptions, base: LoadedBase, port: int) -> list[str]:
    return [
        *(options.command or _find_command()), str(base.path),
        "--host", "127.0.0.1", "--port", str(port), "--served-model-name", plan.base,
        "--max-model-len", str(min(plan.serve.max_context_tokens, base.context_tokens)),
        "--generation-config", "vllm", "--scheduling-policy", "priority", "--enable-prompt-tokens-details",
        "--structured-outputs-config.backend", "guidance",
        "--enable-lora", "--max-loras", str(options.max_loras), "--max-lora-rank", str(options.max_lora_rank),
        "--max-cpu-loras", str(max(options.max_loras, options.max_cpu_loras)),
        *options.arguments,
    ]  # fmt: skip


def _environ(key: str) -> dict[str, str]:
    """Ours without our secrets, and: its key, adapters at run time, and not a word to anyone else.

    The Hub's token is no use to it: it is given a folder, and asks no Hub.
    """
    return share_environment() | {
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
