"""What the scheduler deals with: works, the flows they wait in, and the plan of one step. Imports no torch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from espalier.core.ports import Lane


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
    followers: int = 0  # further answers to the same prompt, which queue once it is computed
    # What follows is the scheduler's own.
    flow: Flow | None = field(default=None, repr=False)  # whose share it uses
    guaranteed: bool = False  # a reservation's tokens were set aside for it
    set_aside: float = 0.0  # of those tokens, how many
    charged: float = 0.0  # tokens its flow was charged since it has a slot
    spent: int = 0  # tokens computed since it has a slot
    tag: float = 0.0  # its flow's clock when it got its slot: whoever's is least goes first
    arrived_s: float = 0.0
    turn: int = 0  # the last step that computed a token of it

    @property
    def wanted(self) -> int:
        """Tokens that are known but not computed."""
        return len(self.tokens) - self.computed

    @property
    def answer(self) -> list[int]:
        return self.tokens[self.prompt_tokens :]


@dataclass(slots=True, eq=False)
class Flow:
    """Those who wait for one another, first come first served."""

    name: str
    queue: str  # the class of works it belongs to
    weight: float = 1.0
    clock: float = 0.0
    waiting: deque[Work] = field(default_factory=deque)
    running: int = 0
    answer_tokens: float = 0.0  # of its answers so far; 0 = there was none
    stays: bool = False  # also when nobody asks

    def expect_tokens(self, work: Work) -> float:
        """Tokens the work will probably need from here on, its prompt included."""
        return len(work.tokens) + self._expect_answer(work)

    def expect_all(self, work: Work) -> float:
        """The same, with the answers that follow it: their prompt is copied."""
        return self.expect_tokens(work) + self.expect_followers(work)

    def expect_followers(self, work: Work) -> float:
        """Tokens of the answers that follow the work."""
        return work.followers * self._expect_answer(work) if work.followers else 0.0

    def _expect_answer(self, work: Work) -> float:
        room = work.most_tokens - len(work.tokens)
        answered = len(work.tokens) - work.prompt_tokens
        guess = max(self.answer_tokens - answered, 1.0) if self.answer_tokens else room
        return min(room, guess)


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
