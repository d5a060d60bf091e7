"""The Protocols through which stages meet: a stage asks for one, a service hands it another stage's callable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol, runtime_checkable

from espalier.core.events import Event
from espalier.core.types import Artifact, Generation, Message, SamplingSpec, TokenLogprob, Tool, ToolCall, Usage
from espalier.core.types.inference import FinishReason

Lane = Literal["interactive", "batch"]  # batch gets what interactive requests leave over


class Generate(Protocol):
    """Answer a batch of conversations: one Generation each, in order."""

    def __call__(self, batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]: ...


@runtime_checkable
class TellLogprobs(Protocol):
    """Tell what a model finds likely at every place of texts given as ids."""

    def top_logprobs(self, batch: Sequence[Sequence[int]], k: int) -> list[list[dict[int, float]]]:
        """For each text and each of its ids, in order: log-probabilities by id of the k likeliest ids there, given all
        before; the first has none. The id that stands there may be told besides."""
        ...


@dataclass(slots=True)
class ChatRequest:
    """One question to a model that has already been resolved and paid for."""

    id: str
    base: str  # which loaded base
    adapter: str  # artifact digest, empty = the base itself
    messages: list[Message]
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"  # none, auto, required, or the one tool's name
    parallel_calls: bool = True  # whether one answer may hold several calls
    flow: str = ""  # whose share of the engine it uses: requests of one flow wait for one another
    lane: Lane = "interactive"
    reservation: str = ""  # the reserved capacity it draws on; empty = on demand


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. The last one of each answer carries its finish reason, and the very last the usage of all.

    A piece before it may carry the usage so far: it is what a request that is cancelled after it is charged for.
    """

    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    index: int = 0  # which of the `n` answers
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()  # whole calls, each in one piece
    adapter: str | None = None  # on a last piece: the digest its tokens were really computed under; None = not told


class ChatProvider(Protocol):
    """Whatever answers chats: our engine in this process, or an upstream endpoint.

    Closing the iterator early cancels the request and frees what it held.
    """

    def stream(self, request: ChatRequest) -> AsyncIterator[Delta]: ...

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """The exact or an upper bound of the prompt's tokens, for the reservation."""
        ...


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is: what an autoscaler and admission decide by."""

    running: int = 0  # requests that have a slot
    waiting: int = 0
    tokens_in_flight: int = 0  # of the prompts and answers of both, at their longest
    queue_s: float = 0.0  # how long the one that waits longest has waited
    slots: int = 0


@dataclass(frozen=True, slots=True)
class ReservedShare:
    """What an engine holds back for one reservation: slots, and the tokens a minute that go before all others."""

    name: str  # as `ChatRequest.reservation` names it
    slots: int
    tokens_per_minute: int


@runtime_checkable
class HoldsCapacity(Protocol):
    """An engine that can keep part of itself for reservations; one that cannot, lacks this method."""

    def hold(self, shares: Sequence[ReservedShare]) -> None:
        """From the next step on hold exactly `shares`; what was held before and is not among them is free."""
        ...


@runtime_checkable
class LoadsOnDemand(Protocol):
    """A provider that loads a model when it is first asked for; one that has all of its own lacks this method."""

    def is_ready(self, base: str) -> bool:
        """Whether a request for this base waits for nothing to be loaded. Returns at once."""
        ...


@runtime_checkable
class TellMemory(Protocol):
    """An engine that holds its model in this machine's memory; one that runs elsewhere lacks this method."""

    def memory_bytes(self) -> int:
        """What its weights, its cache and its adapters take now."""
        ...


@runtime_checkable
class Replicated(Protocol):
    """An engine that is as many processes as it is told to be."""

    def count_replicas(self) -> int:
        """Those that answer, and those that are starting."""
        ...

    def scale(self, replicas: int) -> None:
        """Be so many; returns at once. Those that are too many finish their answers first."""
        ...


class ModelEngine(ChatProvider, Protocol):
    """One base and the adapters on it, wherever they run: this process, others on this machine, vLLM, a cluster.

    All methods but `stream` may block and may be called from any thread.
    """

    def start(self) -> object:
        """Begin to answer; returns when it does. Raises Unavailable, UnsupportedModel, InvalidInput."""
        ...

    def stop(self) -> None:
        """End; answers not finished end as `cancelled`."""
        ...

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Have the adapter in `folder` answer as `digest`. Raises DigestMismatch, InvalidInput."""
        ...

    def unload_adapter(self, digest: str) -> None:
        """Take no new request for it, wait for those under way, let it go. Raises NotFound when it is not loaded."""
        ...

    def list_adapters(self) -> list[str]:
        """Digests that may be asked."""
        ...

    def load(self) -> EngineLoad: ...


class Blobs(Protocol):
    """Content-addressed bytes. Every read checks the digest; a write is whole or absent."""

    def put(self, source: IO[bytes]) -> tuple[str, int]:
        """Store a stream; returns (sha256 hex, size_bytes). Raises StorageFull."""
        ...

    def put_file(self, path: Path) -> tuple[str, int]: ...

    def read(self, sha256: str) -> bytes:
        """Raises NotFound, or DigestMismatch when the stored bytes changed."""
        ...

    def fetch(self, sha256: str, target: Path) -> None:
        """Write the blob to `target` (atomically; a hard link where the store allows one, read-only)."""
        ...

    def has(self, sha256: str) -> bool: ...


class StepContext(Protocol):
    """What a step's function is given besides its spec."""

    @property
    def seed(self) -> int: ...

    @property
    def run_id(self) -> str: ...

    @property
    def actor(self) -> str: ...

    @property
    def workspace(self) -> Path:
        """The workspace's root; only a side-effect step (register, publish, deploy) may look into it."""
        ...

    @property
    def inputs(self) -> Mapping[str, Artifact]: ...

    @property
    def scratch(self) -> Path:
        """A folder that outlives a crash of this very step (same key): checkpoints go here."""
        ...

    @property
    def cache(self) -> Path:
        """A folder all steps of the workspace share. What stands in it is named by its content, and may be gone at any
        time: it saves work and decides nothing."""
        ...

    def input(self, name: str) -> Path:
        """The folder of input artifact `name`, read-only. Raises InvalidInput when the step was given none."""
        ...

    def output(self, name: str) -> Path:
        """An empty folder; what stands in it when the step returns becomes artifact `name`."""
        ...

    def describe(self, name: str, /, **meta: str) -> None:
        """Put metadata on output `name`'s manifest."""
        ...

    def emit(self, event: Event) -> None: ...

    def metric(self, name: str, value: float) -> None:
        """A figure kept on the run."""
        ...
