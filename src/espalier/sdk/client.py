"""`Client`: every operation as a Python call, in process or over HTTP, with the same types and the same exceptions.

    client = Client(workspace=Path("project"))              # in this process, on the files
    client = Client(url="http://127.0.0.1:8321", key=...)   # against a running `espalier serve`

    client.models.promote(ref="model:support@v1", to="production")
    client.call("models.promote", ref="model:support@v1", to="production")
    client.training.tune(recipe="train.yaml", dataset="support").wait(print)

An answer comes back as its type, a stream as an iterator, a job as a `RunHandle`. Knows no operation: they are looked
up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pydantic import BaseModel

from espalier.core.errors import NotFound, did_you_mean, from_json
from espalier.core.events import IDLE, Event
from espalier.core.operations import Operation, find_operation, load_operations
from espalier.core.types import Run
from espalier.services.dispatch import parse_request


class Transport(Protocol):
    """How a client reaches the operations."""

    def perform(self, operation: Operation, request: BaseModel) -> Any:
        """The answer, an iterator for a stream, or the queued Run for a job."""
        ...

    def work(self, run: Run, on_event: Callable[[Event], None]) -> Run | None:
        """Do a queued job here and now, if this transport can and nobody else has it; else None."""
        ...

    def detach(self, run: Run) -> None:
        """Leave a queued job to whichever worker is there first."""
        ...

    def close(self) -> None: ...


class Client:
    """One workspace's operations. Without arguments: the workspace around the current folder, as the current user.

    With `url` (or $ESPALIER_API_URL and no `workspace`) it speaks HTTP; `key` defaults to $ESPALIER_API_KEY. Raises
    InvalidInput and NotFound for a wrong setting or folder; every call raises the errors its operation raises.
    """

    def __init__(
        self,
        workspace: Path | str | None = None,
        *,
        actor: str = "",
        url: str = "",
        key: str = "",
        overrides: Iterable[str] = (),
        transport: Transport | None = None,
    ) -> None:
        if not url and workspace is None:
            url = os.environ.get("ESPALIER_API_URL", "")
        self._transport = transport or _transport(workspace, actor, url, key, overrides)

    def call(self, name: str, /, **fields: Any) -> Any:
        """Call operation `name` with its request's fields. Raises InvalidInput for fields it has not."""
        operation = find_operation(name)
        answer = self._transport.perform(operation, parse_request(operation, fields))
        return RunHandle(self, answer) if operation.shape == "job" else answer

    def __getattr__(self, noun: str) -> Noun:
        if noun.startswith("_"):
            raise AttributeError(noun)
        nouns = {operation.noun for operation in load_operations().values()}
        if noun not in nouns:
            raise AttributeError(f"no noun {noun!r}: {did_you_mean(noun, nouns)}")
        return Noun(self, noun)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(operation.noun for operation in load_operations().values())})

    def close(self) -> None:
        """Close what the client opened."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Noun:
    """`client.models`: its attributes are the verbs."""

    def __init__(self, client: Client, noun: str) -> None:
        self._client, self._noun = client, noun

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb.startswith("_"):
            raise AttributeError(verb)
        try:
            operation = find_operation(f"{self._noun}.{verb}")
        except NotFound as error:
            raise AttributeError(str(error)) from None

        def call(**fields: Any) -> Any:
            return self._client.call(operation.name, **fields)

        call.__doc__, call.__name__ = operation.help, verb
        return call

    def __dir__(self) -> list[str]:
        return [operation.verb for operation in load_operations().values() if operation.noun == self._noun]


class RunHandle:
    """A job that was started: watch it, wait for it, stop it."""

    def __init__(self, client: Client, run: Run) -> None:
        self._client, self._run = client, run

    @property
    def id(self) -> str:
        return self._run.id

    def refresh(self) -> Run:
        """The run as it stands now."""
        self._run = self._client.call("runs.show", id=self.id)
        return self._run

    def events(self, *, follow: bool = True) -> Iterator[Event]:
        """Its events from the first; with `follow`, until it has ended."""
        for event in self._client.call("jobs.logs", id=self.id, follow=follow):
            if event.kind != IDLE:
                yield event

    def detach(self) -> Run:
        """Leave the job to a worker (`espalier serve` on the same workspace is one) and return its run at once.

        In process a job is kept some seconds for the `wait` of who asked for it; after this nobody waits.
        """
        self._client._transport.detach(self._run)
        return self.refresh()

    def wait(self, on_event: Callable[[Event], None] = lambda event: None) -> Run:
        """Block until it has ended, and return it. In process, a job nobody has taken is done here, by this call.

        Raises the error the run failed with, as the class it was raised as.
        """
        run = self._client._transport.work(self._run, on_event)
        if run is None:
            for event in self.events():
                on_event(event)
            run = self.refresh()
        self._run = run
        if run.error is not None:
            raise from_json(run.error)
        return run

    def cancel(self) -> None:
        """Ask it to stop; finished steps are kept."""
        self._client.call("jobs.cancel", id=self.id)

    def __repr__(self) -> str:
        return f"RunHandle({self.id}, {self._run.step}, {self._run.status})"


def _transport(workspace: Path | str | None, actor: str, url: str, key: str, overrides: Iterable[str]) -> Transport:
    if url:
        from espalier.sdk.http import HttpTransport

        return HttpTransport(url, key=key or os.environ.get("ESPALIER_API_KEY", ""), actor=actor)
    from espalier.sdk.local import LocalTransport
    from espalier.services.context import open_context

    return LocalTransport(open_context(None if workspace is None else Path(workspace), overrides, actor))
