"""Whether a request may wait: bounded queues, for each flow and in all, by number and by how long it would wait.

A refusal says when to ask again. Imports no torch; knows no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass

from espalier.core.config import SharingConfig
from espalier.core.errors import RateLimited, Unavailable
from espalier.core.ports import Lane
from espalier.serve.fairness import Crowd

_SHORTEST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0  # OpenAI's clients take no longer Retry-After at its word


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long queues may be."""

    waiting: int = 1024  # answers, all flows together
    waiting_per_flow: int = 256
    tokens: int = 0  # of all that wait, prompts and expected answers; 0 = any number
    wait_s: float = 60.0  # a request that would wait longer is refused; 0 = any time


def read_bounds(sharing: SharingConfig) -> dict[Lane, Bounds]:
    """What the settings say for each lane. Batch works may wait for any time: they have nothing else to do."""
    interactive = Bounds(
        sharing.max_waiting, sharing.max_waiting_per_flow, sharing.max_waiting_tokens, sharing.max_wait_s
    )
    return {"interactive": interactive, "batch": Bounds(sharing.max_waiting, sharing.max_waiting, 0, 0.0)}


def predict_wait_s(crowd: Crowd, tokens_per_s: float) -> float:
    """How long the next request of a flow will wait; 0 where nothing was measured yet.

    The flow's own tokens at its share of the engine's speed; never more than all tokens that wait at full speed.
    """
    if tokens_per_s <= 0:
        return 0.0
    return min(crowd.tokens, crowd.flow_tokens / crowd.share) / tokens_per_s


def check_admission(crowd: Crowd, bounds: Bounds, tokens_per_s: float, answers: int = 1) -> None:
    """`answers`: how many the request wants, each of which waits for a slot of its own.

    Raises RateLimited where the flow is at fault, Unavailable where everybody is; both say when to ask again.
    """
    wait_s = predict_wait_s(crowd, tokens_per_s)
    hint = "ask again later, or reserve capacity for this model"
    if _overflows(crowd.waiting, answers, bounds.waiting):
        raise Unavailable(f"{crowd.waiting} answers are waiting already", hint=hint, retry_after_s=_clip(wait_s / 2))
    if 0 < bounds.tokens <= crowd.tokens:
        raise Unavailable(
            f"requests of {crowd.tokens:.0f} tokens are waiting already", hint=hint, retry_after_s=_clip(wait_s / 2)
        )
    if _overflows(crowd.flow_waiting, answers, bounds.waiting_per_flow):
        said = f"{crowd.flow_waiting} of your answers are waiting already"
        raise RateLimited(said, hint="send fewer at once", retry_after_s=_clip(wait_s / 2))
    if 0 < bounds.wait_s < wait_s:
        said = f"this request would wait about {wait_s:.0f} s, longer than {bounds.wait_s:g} s"
        raise RateLimited(said, hint=hint, retry_after_s=_clip(wait_s - bounds.wait_s))


def _overflows(waiting: int, answers: int, most: int) -> bool:
    """Whether no more fit. Where nobody waits, a request for more answers than may wait is taken, or it never were."""
    return waiting + (answers if waiting else 1) > most


def _clip(wait_s: float) -> float:
    return min(max(wait_s, _SHORTEST_WAIT_S), _LONGEST_WAIT_S)
