"""Texts -> scores by a trained head: labels with their probabilities, or rewards.

The same packs, backbone and cut of the text as in training. The same texts give the same scores; how they are packed
together can change a score's last bits, as in any batch. Knows no training loop and no server.

Legend: n texts, c labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from espalier.core.errors import InvalidInput
from espalier.core.types import Message
from espalier.nn.adapterfiles import CONFIG
from espalier.nn.adapters import continue_adapters
from espalier.nn.backbone import Backbone
from espalier.nn.base import LoadedBase
from espalier.nn.probe import transformer_backbone
from espalier.nn.scorehead import ScoreHead, read_head
from espalier.tokens.ends import encode_conversation, encode_question, lay_ends
from espalier.tokens.pack import fill, join
from espalier.tokens.tokenizer import ChatTokenizer

PACK_TOKENS = 2048

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text's label, the probability of every label in the head's order, and how many tokens were read."""

    label: str
    probabilities: dict[str, float]
    tokens: int


@dataclass(frozen=True, slots=True)
class Scorer:
    """A base with a trained head on it."""

    backbone: Backbone
    head: ScoreHead
    tokenizer: ChatTokenizer
    context_tokens: int

    def score(self, texts: Sequence[Sequence[int]], *, pack_tokens: int = PACK_TOKENS) -> Scores:
        """The head's logits (n, c) at each text's last token. Raises InvalidInput for a text that is too long."""
        for number, ids in enumerate(texts):
            if len(ids) > self.context_tokens:
                raise InvalidInput(
                    f"text {number + 1} has {len(ids)} tokens, the context {self.context_tokens}", hint="shorten it"
                )
        strips = [lay_ends(str(number), (), [ids], [0], [1.0]) for number, ids in enumerate(texts)]
        found = np.empty((len(texts), len(self.head.weight)), np.float32)
        with torch.inference_mode():
            for members in fill([len(strip) for strip in strips], pack_tokens=pack_tokens, seed=""):
                hidden = self.backbone.hidden(join([strips[index] for index in members]))
                found[members] = self.head.logits(hidden).float().cpu().numpy()
        return found

    def classify(self, questions: Sequence[Sequence[Message]]) -> list[Labelled]:
        """The likeliest label of each question; a longer one loses the end of its last turn, as in training.

        Raises InvalidInput when the head gives rewards.
        """
        self._expect("classify")
        read = [encode_question(self.tokenizer, turns, context_tokens=self.context_tokens).ids for turns in questions]
        shares = torch.from_numpy(self.score(read)).double().softmax(1).tolist()
        labelled = [dict(zip(self.head.labels, row, strict=True)) for row in shares]
        return [Labelled(max(row, key=row.__getitem__), row, len(ids)) for row, ids in zip(labelled, read, strict=True)]

    def reward(self, conversations: Sequence[Sequence[Message]]) -> list[float]:
        """What each conversation's last answer is worth. Raises InvalidInput when one ends without an answer."""
        self._expect("reward")
        read = [encode_conversation(self.tokenizer, turns) for turns in conversations]
        return [float(value) for value in self.score(read)[:, 0]]

    def _expect(self, kind: str) -> None:
        if self.head.kind != kind:
            raise InvalidInput(
                f"this head was trained by `{self.head.kind}`", hint=f"train one with `method: {kind}` for that"
            )


def open_scorer(base: LoadedBase, folder: Path) -> Scorer:
    """The head in `folder`, with the adapter beside it, on `base`; for a model tuned in full, `base` is that folder.

    The base's model is used up. Raises NotFound when there is no head, DigestMismatch when it was trained on another
    base, InvalidInput, UnsupportedModel.
    """
    head = read_head(folder, int(base.config.get_text_config().hidden_size))
    head.weight.data = head.weight.data.to(base.device)
    adapters = continue_adapters(base, folder, dropout=0.0) if (folder / CONFIG).is_file() else None
    backbone = transformer_backbone(base.model, adapters.named_parameters() if adapters else {})
    return Scorer(backbone, head, base.tokenizer, base.context_tokens)
