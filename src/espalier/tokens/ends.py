"""What a head over a whole text reads: the text's ids, and strips whose last token predicts.

Training and prediction cut a text by the same function, so that they can never see it differently. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from espalier.core.errors import InvalidInput
from espalier.core.types import Message
from espalier.tokens.mask import TRAINING_DAY, supervise
from espalier.tokens.pack import Strip, lay_branches
from espalier.tokens.tokenizer import ChatTokenizer


@dataclass(frozen=True, slots=True)
class Read:
    """Ids of a text, and how many of its tokens were left out because the context ended."""

    ids: list[int]
    cut_tokens: int = 0


def encode_question(tokenizer: ChatTokenizer, messages: Sequence[Message], *, context_tokens: int) -> Read:
    """The conversation with the assistant's turn opened; a longer one loses the end of its last turn, never the
    template's marks. A base without a template reads the turns' texts, a blank line between.

    A template that names a day names that of training, always: a head has never seen another.
    Raises InvalidInput for no text at all, and when the marks alone are longer than the context.
    """
    if not any(turn.content.strip() for turn in messages):
        raise InvalidInput("there is no text to judge", hint="an example needs a user's turn, or a text")
    if not tokenizer.template:
        ids = [*tokenizer.opening, *tokenizer.encode("\n\n".join(turn.content for turn in messages))]
        return Read(ids[:context_tokens], max(0, len(ids) - context_tokens))
    ids = tokenizer.encode_prompt(messages, on=TRAINING_DAY)
    whole, last = len(ids), messages[-1]
    kept = tokenizer.encode(last.content)
    while len(ids) > context_tokens:
        excess = len(ids) - context_tokens
        if len(kept) <= excess:
            raise InvalidInput(
                f"a context of {context_tokens} tokens does not hold the conversation before its last turn",
                hint="raise `context_tokens`",
            )
        kept = kept[:-excess]
        shortened = replace(last, content=tokenizer.decode(kept).rstrip("\ufffd"))  # half a character is none
        ids = tokenizer.encode_prompt([*messages[:-1], shortened], on=TRAINING_DAY)
    return Read(ids, whole - len(ids))


def encode_conversation(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """A whole conversation, up to and with the end of the assistant's last turn: what a reward is given for.

    Raises InvalidInput when it does not end on the assistant's turn.
    """
    if not messages or messages[-1].role != "assistant":
        raise InvalidInput(
            "a reward is given for an answer, and the conversation does not end with one",
            hint="its last turn must be the assistant's",
        )
    ids, weights = supervise(tokenizer, messages, first=len(messages) - 1)
    return ids[: max(place for place, weight in enumerate(weights) if weight > 0) + 1]


def lay_ends(
    id: str, prompt: Sequence[int], sequences: Sequence[Sequence[int]], targets: Sequence[int], weights: Sequence[float]
) -> Strip:
    """Sequences behind one prompt, computed once; the last token of each predicts its target (a label's index).

    A sequence of weight 0 gets no row.
    """
    branches = []
    for sequence, target, weight in zip(sequences, targets, weights, strict=True):
        branches.append(([*sequence, target], [*([0.0] * len(sequence)), weight]))
    return lay_branches(id, prompt, branches)
