"""A teacher behind an endpoint that tells log-probabilities of given ids. Knows no HTTP: it is given who tells.

Legend: r rows, k tokens of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espalier.core.errors import InvalidInput
from espalier.core.ports import TellLogprobs
from espalier.nn.locate import locate_base
from espalier.tokens.pack import Strip
from espalier.tokens.tokenizer import load_tokenizer
from espalier.train.distillation.kept import CHOICE, Choices
from espalier.train.distillation.spec import TeacherSpec
from espalier.train.distillation.teacher import check_tokenizers
from espalier.train.method import Setting


@dataclass(frozen=True, slots=True)
class RemoteTeacher:
    """`tell` answers for plain documents: one segment, whose rows are its own places."""

    tell: TellLogprobs
    k: int
    limit: int  # ids the student has
    key: Mapping[str, Any]
    whole: bool = False  # no endpoint tells a whole vocabulary

    def choose(self, strips: Sequence[Strip]) -> list[Choices]:
        texts = [[*strip.ids.tolist(), int(strip.targets[-1])] for strip in strips]
        told = self.tell.top_logprobs(texts, self.k)
        return [self._pick(strip, places) for strip, places in zip(strips, told, strict=True)]

    def _pick(self, strip: Strip, places: Sequence[Mapping[int, float]]) -> Choices:
        """What is told of the place after each row: that is what the row predicts."""
        if len(places) != len(strip) + 1:
            raise InvalidInput(
                f"the endpoint tells of {len(places)} tokens of a text of {len(strip) + 1}",
                where=f"example {strip.id}",
                hint="it cuts the text anew, so it cannot teach",
            )
        choices = np.empty((len(strip.rows), self.k), CHOICE)
        for number, row in enumerate(strip.rows.tolist()):
            best = sorted(places[row + 1].items(), key=lambda one: (-one[1], one[0]))[: self.k]
            if len(best) < self.k or max(id for id, _ in best) >= self.limit:
                raise InvalidInput(
                    f"the endpoint tells {len(best)} tokens of a place, {self.k} the student has are wanted",
                    where=f"example {strip.id}",
                    hint="set its --max-logprobs to `k` or more, or lower `k`",
                )
            choices[number] = best
        return choices


@contextmanager
def open_remote(setting: Setting, wanted: TeacherSpec, k: int) -> Iterator[RemoteTeacher]:
    """The endpoint a recipe names. Raises DigestMismatch for another tokenizer, InvalidInput where it cannot tell."""
    name = wanted.tokenizer
    folder = Path(name.removeprefix("path:")) if name.startswith("path:") else locate_base(name)
    tokenizer = load_tokenizer(folder)
    check_tokenizers(tokenizer.digest, f"{wanted.model} at {wanted.endpoint}", setting.base)
    limit = len(setting.backbone.head().matrix)
    key = {"version": 1, "teacher": f"{wanted.model} at {wanted.endpoint}", "tokenizer": tokenizer.digest, "k": k}
    if setting.open_model is None:
        raise InvalidInput("an endpoint cannot be asked here", hint="run it through `espalier train`, with where: here")
    asked = {name: getattr(wanted, name) for name in ("endpoint", "model", "key_env")}
    with setting.open_model(asked) as teller:
        if not isinstance(teller, TellLogprobs):
            raise InvalidInput(f"{wanted.endpoint} tells no log-probabilities")
        yield RemoteTeacher(teller, min(k, limit), limit, key)
