"""One short answer before the first real one, so that kernels are built and pages touched while nobody waits."""

from __future__ import annotations

import contextlib
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from espalier.core.errors import InvalidInput
from espalier.core.ids import make_id
from espalier.core.ports import ChatProvider, ChatRequest, Delta
from espalier.core.types import Message, SamplingSpec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_WORDS = "one two three four five six seven eight nine ten eleven twelve " * 3
_TOKENS = 8


async def warm(engine: ChatProvider, base: str) -> None:
    """Prefill and decode once. Raises what the engine raises, but for a context too short for this prompt."""
    sampling = SamplingSpec(max_tokens=_TOKENS, ignore_end=True)
    request = ChatRequest(make_id("req"), base, "", [Message("user", _WORDS)], sampling, flow="warming")
    with contextlib.suppress(InvalidInput):
        async with aclosing(cast("AsyncGenerator[Delta, None]", engine.stream(request))) as deltas:
            async for _ in deltas:
                pass
