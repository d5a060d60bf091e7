"""A model that answers batches in this process: a base, a base with one adapter, or a head that answers with labels."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.core.config import ServeConfig
from espalier.core.ports import Generate
from espalier.core.types import Generation, Message, SamplingSpec, Usage

if TYPE_CHECKING:
    from espalier.nn.base import LoadedBase

_ADAPTER = "the-one"  # an engine of one adapter needs no digest to tell it from others


@contextmanager
def open_model(base: str, *, adapter: Path | None = None, batch: int = 32, threads: int = 0) -> Iterator[Generate]:
    """Load `base` and, with `adapter`, the adapter in that folder. Raises what loading raises.

    One that was trained by `method: classify` answers with its likeliest label, so that a head and a model that writes
    labels can be asked the same questions.
    """
    from espalier.nn.base import load_base
    from espalier.nn.scorehead import holds_head
    from espalier.serve.engine import Engine

    loaded = load_base(base, threads=threads)
    headed = next((folder for folder in (adapter, loaded.path) if folder is not None and holds_head(folder)), None)
    if headed is not None:
        yield answer_labels(loaded, headed)
        return
    config = ServeConfig(max_batch=batch, max_context_tokens=loaded.context_tokens, threads=threads)
    engine = Engine(loaded, config)
    if adapter is not None:
        engine.load_adapter(_ADAPTER, adapter)
    try:
        yield functools.partial(engine.generate, adapter=_ADAPTER if adapter is not None else "")
    finally:
        engine.stop()


def answer_labels(base: LoadedBase, folder: Path) -> Generate:
    """A `Generate` that says the likeliest label; how to sample plays no part. Raises what opening a head raises."""
    from espalier.nn.scoring import open_scorer

    scorer = open_scorer(base, folder)

    def generate(batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]:
        return [
            Generation(
                text=found.label,
                finish_reason="stop",
                usage=Usage(prompt_tokens=found.tokens, completion_tokens=0),
            )
            for found in scorer.classify(batch)
        ]

    return generate
