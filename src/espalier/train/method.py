"""`Method`: one way to train, as the runner sees it: a spec, and what to make of examples. Knows no loop and no file.

A method is a file in train/methods, declared in the entry point group `espalier.methods` (name -> Method).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from espalier.core.events import Emit
from espalier.core.plugins import load_plugin
from espalier.core.ports import Generate
from espalier.core.step import FilesOf, no_files

if TYPE_CHECKING:
    from torch import Tensor

    from espalier.nn.backbone import Backbone
    from espalier.nn.base import LoadedBase
    from espalier.tokens.pack import Strip
    from espalier.train.audit import MaskAudit
    from espalier.train.corpus import Documents, Source
    from espalier.train.job import Job, TrainResult
    from espalier.train.objective import Objective
    from espalier.train.parallel import World
    from espalier.train.recipe import TrainSpec


OpenModel = Callable[[Mapping[str, Any]], AbstractContextManager[Generate]]  # a recipe's `model:` -> who answers


@dataclass(frozen=True, slots=True)
class Setting:
    """What a method is given: the model before its first step, and the data."""

    spec: TrainSpec
    base: LoadedBase
    backbone: Backbone
    sources: Sequence[Source]  # the main dataset first
    context_tokens: int
    cache_dir: Path  # shared by runs; content-named, may vanish at any time
    emit: Emit
    start: str = ""  # digest of what the weights are before the first step: base, and the adapter it starts from
    world: World | None = None  # who shares the work; None = this process alone
    open_model: OpenModel | None = None  # how a teacher at an endpoint is asked; None where nobody can say


class TrainedHead(Protocol):
    """A head that learns beside the backbone (classify, reward): its tensors, and how they are written."""

    @property
    def parameters(self) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a method makes of the data: documents to learn from, documents to watch, and the loss."""

    documents: Documents
    objective: Objective
    audit: MaskAudit
    validation: Sequence[Strip] = ()
    head: TrainedHead | None = None
    finish: Callable[[Path], None] | None = None  # completes the folder that was written: a head, its labels
    identity: Mapping[str, Any] = field(default_factory=dict)  # what else decides the result, for the checkpoint


# (job, emit, how to open a judge or a teacher) -> what was made
Run = Callable[["Job", Emit, "OpenModel | None"], "TrainResult"]


@dataclass(frozen=True, slots=True)
class Method:
    """A declared method. `prepare` runs once, before the first step, with the weights as they start."""

    name: str
    spec: type[TrainSpec]
    summary: str
    prepare: Callable[[Setting], Prepared]
    files: FilesOf = no_files  # the user's files a spec names: their content is part of what is trained
    run: Run | None = None  # does a whole job by a loop of its own (grpo), in place of train/runner


def load_method(name: str) -> Method:
    """The method of that name; raises NotFound with the nearest names."""
    method: Method = load_plugin("espalier.methods", name)
    return method
