"""A model that answers batches in this process: a base, or a base with one adapter, as a `Generate`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espalier.core.config import ServeConfig
from espalier.core.ports import Generate

_ADAPTER = "the-one"  # an engine of one adapter needs no digest to tell it from others


@contextmanager
def open_model(base: str, *, adapter: Path | None = None, batch: int = 32, threads: int = 0) -> Iterator[Generate]:
    """Load `base` and, with `adapter`, the adapter in that folder. Raises what loading raises."""
    from espalier.nn.base import load_base
    from espalier.serve.engine import Engine

    loaded = load_base(base, threads=threads)
    config = ServeConfig(max_batch=batch, max_context_tokens=loaded.context_tokens, threads=threads)
    engine = Engine(loaded, config)
    if adapter is not None:
        engine.load_adapter(_ADAPTER, adapter)
    try:
        yield functools.partial(engine.generate, adapter=_ADAPTER if adapter is not None else "")
    finally:
        engine.stop()
