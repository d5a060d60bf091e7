"""`Job`: one training as plain values, so that any process can do it; and what came of it. Knows no loop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from espalier.core.plugins import load_plugin
from espalier.train.corpus import Source
from espalier.train.progress import Progress
from espalier.train.recipe import TrainSpec


@dataclass(frozen=True, slots=True)
class Job:
    """What to train, on what, and where to."""

    method: str
    spec: TrainSpec
    sources: tuple[Source, ...]  # the main dataset first
    out_dir: Path
    checkpoint_dir: Path  # outlives a crash: the same job goes on where it stood
    cache_dir: Path
    adapter: Path | None = None  # an adapter to go on from
    dataset: str = ""  # digest to record in what is written
    base: str = ""  # how to record the base, where that is not by the name it is loaded under

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(
            {
                "method": self.method,
                "spec": self.spec.model_dump(mode="json"),
                "sources": [[s.name, str(s.folder), s.digest, s.share] for s in self.sources],
                "out_dir": str(self.out_dir),
                "checkpoint_dir": str(self.checkpoint_dir),
                "cache_dir": str(self.cache_dir),
                "adapter": None if self.adapter is None else str(self.adapter),
                "dataset": self.dataset,
                "base": self.base,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(
            **values
            | {
                "spec": load_plugin("espalier.methods", values["method"]).spec.model_validate(values["spec"]),
                "sources": tuple(
                    Source(name, Path(at), digest, share) for name, at, digest, share in values["sources"]
                ),
                "out_dir": Path(values["out_dir"]),
                "checkpoint_dir": Path(values["checkpoint_dir"]),
                "cache_dir": Path(values["cache_dir"]),
                "adapter": None if values["adapter"] is None else Path(values["adapter"]),
            }
        )


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run made and what it took."""

    progress: Progress
    base_digest: str  # of the base that was tuned
    trained_parameters: int
    total_parameters: int
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers worth keeping on a run."""
        values = {**self.progress.validation_figures, **self.progress.to_json(), **self.figures}
        values |= {"trained_parameters": self.trained_parameters, "total_parameters": self.total_parameters}
        return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
