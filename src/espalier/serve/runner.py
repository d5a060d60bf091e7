"""One engine step on the model: a scheduler's plan -> the logits that decide next tokens. Knows no thread."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from espalier.nn.base import LoadedBase
from espalier.nn.fused import FusedDecoder, can_fuse
from espalier.nn.holding import held_bytes
from espalier.nn.mixed import AdapterBank, install_bank
from espalier.nn.slots import SlotCache, Span, Step, install_slots
from espalier.serve.scheduler import Chunk, Plan, Work, common_prefix

# Reading a common beginning once costs a few products more; below this it does not pay.
_SHORTEST_SHARED_TOKENS = 64

Forward = Callable[[Tensor, Tensor, Tensor], Tensor]  # ids (t), positions (t), deciding (n) -> logits (n, v)


class Runner:
    """Takes over `base.model`: from now on it attends through slots and adds adapters from `bank`."""

    def __init__(self, base: LoadedBase, slots: int, context_tokens: int) -> None:
        self.base = base
        self.slots = slots
        self._device = base.device  # the base looks it up anew each time
        self.bank = AdapterBank(base.dtype, self._device)
        self._cache = SlotCache(base.model, slots, context_tokens)
        self._by_adapter = False  # rows of one adapter stand together, rather than neighbouring slots
        self._shared: tuple[list[Work], int] = ([], 0)
        self._forward = self._choose_forward(base.model)

    @torch.inference_mode()
    def run(self, plan: Plan) -> tuple[list[Chunk], Tensor]:
        """Compute a step: the chunks that decide a next token, and their logits in that order, (n, v) float32."""
        for copy in plan.copies:
            self._cache.copy(copy.source, copy.target, copy.count)
        answers = [c for c in plan.chunks if c.end - c.start == 1]
        answers.sort(key=lambda c: (c.work.adapter if self._by_adapter else "", c.work.slot))
        ordered = answers + [c for c in plan.chunks if c.end - c.start > 1]
        ids = [token for c in ordered for token in c.work.tokens[c.start : c.end]]
        positions = [position for c in ordered for position in range(c.start, c.end)]
        self._cache.begin(self._layout(answers, ordered[len(answers) :]))
        self.bank.select([(c.work.adapter, c.end - c.start) for c in ordered])
        deciding, last, row = [], [], 0
        for chunk in ordered:
            row += chunk.end - chunk.start
            if chunk.ends:
                deciding.append(chunk)
                last.append(row - 1)
        device = self._device
        logits = self._forward(
            torch.tensor(ids, device=device),
            torch.tensor(positions, device=device),
            torch.tensor(last, dtype=torch.int64, device=device),
        )
        return deciding, logits.float()

    def _choose_forward(self, model: PreTrainedModel) -> Forward:
        """The fused step where it fits, else transformers' own with our attention and our linear layers in it."""
        if can_fuse(model):
            fused = FusedDecoder(model, self._cache, self.bank)
            self._by_adapter = fused.compiled
            return fused
        head = install_bank(model, self.bank)
        install_slots(model, self._cache)

        def forward(ids: Tensor, positions: Tensor, deciding: Tensor) -> Tensor:
            if head is not None:
                head.deciding = deciding
            logits: Tensor = model(
                input_ids=ids[None], position_ids=positions[None], use_cache=False, logits_to_keep=deciding
            ).logits
            return logits[0]

        return forward

    def memory_bytes(self) -> int:
        """What weights, cache (full) and adapters take."""
        return held_bytes(self.base.model, vars(self._cache), vars(self.bank))

    def scrub(self, slot: int) -> None:
        """Clear a slot whose numbers overflowed."""
        self._cache.scrub(slot)

    def _layout(self, answers: list[Chunk], chunks: list[Chunk]) -> Step:
        step = Step([c.work.slot for c in answers], [c.start for c in answers], shared=self._count_shared(answers))
        row = len(answers)
        for chunk in chunks:
            end = row + chunk.end - chunk.start
            step.spans.append(Span(row, end, chunk.work.slot, chunk.start))
            row = end
        return step

    def _count_shared(self, answers: list[Chunk]) -> int:
        """Positions at the start that hold the same tokens under the same adapter in every answer under way."""
        members = [c.work for c in answers]  # compared by identity: two requests may carry the same id
        if members != self._shared[0]:
            self._shared = (members, _common_beginning(answers))
        return self._shared[1]


def _common_beginning(answers: list[Chunk]) -> int:
    if len(answers) < 2 or len({c.work.adapter for c in answers}) > 1:
        return 0
    first = answers[0].work.tokens
    count = min(c.start for c in answers)
    for chunk in answers[1:]:
        count = common_prefix(first, chunk.work.tokens, count)
    return count if count >= _SHORTEST_SHARED_TOKENS else 0
