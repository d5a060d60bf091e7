"""`Asked`: one line of a batch file in our words, whichever vendor's shape it came in. Knows no vendor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from espalier.core.errors import EspalierError
from espalier.wire.openai.request import ChatCall


@dataclass(frozen=True, slots=True)
class Asked:
    """What a line asks: a `call`, or the `fault` for which it cannot be asked.

    `name` is the client's name for the line (OpenAI's custom_id, Bedrock's recordId), empty when it could not be read.
    `fault_code` is set when the line itself is at fault, empty when the request on it is.
    """

    name: str
    call: ChatCall | None = None
    fault: EspalierError | None = None
    fault_code: str = ""
    body: dict[str, Any] = field(default_factory=dict)  # the request as it was written
