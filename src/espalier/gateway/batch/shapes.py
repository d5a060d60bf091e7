"""Whose words a batch's lines are in: OpenAI's, or Bedrock's with either invocation type. One `Shape` for the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from espalier.core.errors import EspalierError
from espalier.core.types import Completion
from espalier.wire.batchline import Asked
from espalier.wire.bedrock import invocation
from espalier.wire.openai import batch as openai

ShapeName = Literal["openai", "invoke", "converse"]


class Shape(Protocol):
    """Reads and writes the lines of one batch. `id` is a line's request id, `number` counts from 0."""

    @property
    def one_file(self) -> bool:
        """Whether failures stand between the answers; otherwise they are in a file of their own."""
        ...

    @property
    def unique(self) -> bool:
        """Whether a name may be given once only."""
        ...

    def decode(self, raw: bytes, number: int) -> Asked: ...

    def answer(self, id: str, asked: Asked, completion: Completion, created_s: int) -> bytes: ...

    def refuse(self, id: str, asked: Asked, number: int) -> bytes:
        """The line of one that cannot be answered, for its `fault`."""
        ...

    def explain(self, refusal: bytes) -> str:
        """What such a line says of why, in words."""
        ...


@dataclass(frozen=True, slots=True)
class OpenAIShape:
    """custom_id, method, url, body. `model` is what a line asks that names none."""

    model: str = ""
    one_file: bool = False
    unique: bool = True

    def decode(self, raw: bytes, number: int) -> Asked:
        return openai.decode_line(raw, self.model)

    def answer(self, id: str, asked: Asked, completion: Completion, created_s: int) -> bytes:
        return openai.encode_answer(id, asked.name, completion, created_s)

    def refuse(self, id: str, asked: Asked, number: int) -> bytes:
        fault = asked.fault or EspalierError("no answer")
        if asked.fault_code:
            return openai.encode_unanswered(id, asked.name, asked.fault_code, _say(fault), number + 1)
        return openai.encode_refusal(id, asked.name, fault)

    def explain(self, refusal: bytes) -> str:
        return openai.read_fault(refusal)


@dataclass(frozen=True, slots=True)
class BedrockShape:
    """recordId, modelInput; the model is the job's."""

    model: str
    kind: invocation.Invocation
    one_file: bool = True
    unique: bool = False

    def decode(self, raw: bytes, number: int) -> Asked:
        return invocation.decode_record(raw, number, self.model, self.kind)

    def answer(self, id: str, asked: Asked, completion: Completion, created_s: int) -> bytes:
        return invocation.encode_answer(asked, completion, created_s, self.kind)

    def refuse(self, id: str, asked: Asked, number: int) -> bytes:
        fault = asked.fault or EspalierError("no answer")
        return invocation.encode_failure(asked, fault.http_status, _say(fault))

    def explain(self, refusal: bytes) -> str:
        return invocation.read_fault(refusal)


def make_shape(name: ShapeName, model: str) -> Shape:
    """The shape called `name`; `model` is what lines ask that name none."""
    if name == "openai":
        return OpenAIShape(model)
    return BedrockShape(model, "Converse" if name == "converse" else "InvokeModel")


def _say(fault: EspalierError) -> str:
    return f"{fault.message}. Next: {fault.hint}" if fault.hint else fault.message
