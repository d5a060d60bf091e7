"""What an engine is made from: one base, the settings for it, and a folder for what it leaves on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from espalier.core.config import EngineConfig, ServeConfig
from espalier.core.faults import refuse
from espalier.core.types import Spec

Options = TypeVar("Options", bound=Spec)


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What an entry point of `espalier.engines` is called with; it returns a core.ports.ModelEngine, not started."""

    base: str  # as requests name it
    place: str  # the same for nn: a name that `locate_base` takes
    serve: ServeConfig
    engine: EngineConfig
    folder: Path  # its own: logs, notes, copies of adapters
    where: str = "serve.engines"  # the setting that chose it, for errors

    def options(self, kind: type[Options]) -> Options:
        """`engine.options` as `kind`. Raises InvalidInput naming the setting."""
        try:
            return kind.model_validate(self.engine.options)
        except ValidationError as error:
            raise refuse(error, self.engine.options, kind, where=f"{self.where}.options") from None
