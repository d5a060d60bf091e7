"""A `Generate` without a model: it answers from a script and remembers what it was asked. For tests."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from espalier.core.types import Generation, Message, SamplingSpec, Usage
from espalier.core.types.inference import FinishReason

Answer = str | Generation


def say(text: str, finish_reason: FinishReason = "stop", tokens: int = 3) -> Generation:
    """A generation of `text` that used so many tokens, asked and answered alike."""
    usage = Usage(prompt_tokens=tokens, completion_tokens=tokens)
    return Generation(text=text, finish_reason=finish_reason, usage=usage)


class Scripted:
    """`script(last message)` is the answer. `late` seeds how long each takes, so that threads overtake each other."""

    def __init__(self, script: Callable[[str], Answer], late: int | None = None) -> None:
        self.asked: list[str] = []
        self._script = script
        self._random = random.Random(late) if late is not None else None

    def __call__(self, batch: Sequence[Sequence[Message]], sampling: SamplingSpec) -> list[Generation]:
        answers = []
        for messages in batch:
            if self._random:
                time.sleep(self._random.random() / 200)
            self.asked.append(messages[-1].content)
            answer = self._script(messages[-1].content)
            answers.append(answer if isinstance(answer, Generation) else say(answer))
        return answers
