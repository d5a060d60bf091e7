"""`StepContext` over a request: folders in and out, and one function through which everything else is said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.events import Event
from espalier.core.types import Artifact


class Send(Protocol):
    """Says one thing to whoever runs the step: `what` is event, metric or describe."""

    def __call__(self, what: str, **said: Any) -> None: ...


class RequestContext:
    """Implements `core.ports.StepContext` over what `executors/staging.py` prepared."""

    def __init__(self, task: Mapping[str, Any], send: Send) -> None:
        self._send = send
        self._step: str = task["step"]
        self._paths = {port: Path(given["path"]) for port, given in task["inputs"].items()}
        self._outputs: Mapping[str, str] = task["outputs"]
        self._staging = Path(task["staging"])
        self.seed: int = task["seed"]
        self.inputs: Mapping[str, Artifact] = {
            port: Artifact.model_validate(given["artifact"]) for port, given in task["inputs"].items()
        }
        self.scratch = Path(task["scratch"])
        self.cache = Path(task["cache"])
        self.run_id: str = task["run"]
        self.actor: str = task["actor"]
        self.workspace = Path(task["workspace"])
        self.key: str = task["key"]  # what a side effect is idempotent by

    def input(self, name: str) -> Path:
        """The folder of input artifact `name`, read-only."""
        if name not in self._paths:
            raise InvalidInput(f"{self._step} was given no input {name!r}", hint=did_you_mean(name, self._paths))
        return self._paths[name]

    def output(self, name: str) -> Path:
        """An empty folder; what stands in it when the step returns becomes artifact `name`."""
        self._check_output(name)
        folder = self._staging / name
        folder.mkdir(exist_ok=True)
        return folder

    def describe(self, name: str, /, **meta: str) -> None:
        """Put metadata on output `name`'s manifest."""
        self._check_output(name)
        self._send("describe", output=name, meta=meta)

    def emit(self, event: Event) -> None:
        self._send("event", **asdict(event))

    def metric(self, name: str, value: float) -> None:
        """A figure kept on the run; conditions may read it. Raises InvalidInput for what is no finite number."""
        if not math.isfinite(value):
            raise InvalidInput(f"{self._step} measured {name} = {value}", hint="it diverged, or divided by nothing")
        self._send("metric", name=name, value=float(value))

    def check_outputs(self) -> None:
        """Raise InvalidInput for a declared output that the step left empty."""
        for name, kind in self._outputs.items():
            folder = self._staging / name
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
            if not folder.is_dir() and not kind.endswith("?"):
                raise InvalidInput(
                    f"{self._step} wrote nothing to its output {name!r}",
                    hint=f"write to context.output({name!r}), or declare it as {kind}?",
                )

    def _check_output(self, name: str) -> None:
        if name not in self._outputs:
            raise InvalidInput(f"{self._step} declares no output {name!r}", hint=did_you_mean(name, self._outputs))
