"""What the scheduler deals with: works, and the plan of one step. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from espalier.core.ports import Lane

if TYPE_CHECKING:
    from espalier.serve.fairness import FairQueue, Flow


@dataclass(frozen=True, slots=True)
class Claim:
    """On whose account a work asks for the engine's time."""

    flow: str = ""  # works of one flow wait for one another; flows share by weight
    lane: Lane = "interactive"
    reservation: str = ""  # empty = on demand


NOBODYS = Claim()  # of those who say nothing: one flow, on demand


@dataclass(slots=True, eq=False)
class Work:
    """One request inside the engine. `tokens` is the prompt, then the answer as it grows; `adapter` never changes."""

    id: str
    adapter: str  # digest; empty = the base itself
    tokens: list[int]
    prompt_tokens: int
    most_tokens: int  # prompt and answer together never grow beyond this
    computed: int = 0
    slot: int = -1
    cancelled: bool = False
    claim: Claim = NOBODYS
    cached: int = 0  # of the prompt: how many tokens were found in the cache, not computed
    # What follows is the scheduler's own.
    flow: Flow | None = field(default=None, repr=False)  # whose share it uses
    queue: FairQueue | None = field(default=None, repr=False)  # which charged it when it got its slot
    guaranteed: bool = False  # a reservation's tokens were set aside for it
    set_aside: float = 0.0  # of those tokens, how many
    charged: float = 0.0  # tokens its flow was charged since it has a slot
    spent: int = 0  # tokens computed since it has a slot
    tag: float = 0.0  # its flow's virtual time when it is done: whoever's is least goes first
    arrived_s: float = 0.0
    turn: int = 0  # the last step that computed a token of it

    @property
    def wanted(self) -> int:
        """Tokens that are known but not computed."""
        return len(self.tokens) - self.computed

    @property
    def answer(self) -> list[int]:
        return self.tokens[self.prompt_tokens :]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Compute `work.tokens[start:end]`. When `ends` the last of them decides the work's next token."""

    work: Work
    start: int
    end: int
    ends: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the first `count` cached positions of slot `source` into slot `target`."""

    source: int
    target: int
    count: int


@dataclass(slots=True)
class Plan:
    """One step: the copies in order, then the chunks together."""

    copies: list[Copy] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
