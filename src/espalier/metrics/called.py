"""The process a user's metric runs in: `python -P -m espalier.metrics.called FILE FUNCTION`, spoken to by `python`.

A line of JSON in, a line of JSON out, the first when the file has run. What the function prints goes nowhere.
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(file: str, function: str) -> None:
    """Serve questions until the input ends."""
    asked, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    name = Path(file).name
    scope: dict[str, Any] = {"__name__": Path(file).stem, "__file__": file}
    try:
        exec(compile(Path(file).read_bytes(), name, "exec"), scope)
        called = scope.get(function)
        if not callable(called):
            raise LookupError(f"there is no function `{function}`")
    except BaseException as error:  # noqa: BLE001 - foreign code: whatever it raises is reported, exits included
        _write(out, describe_error(error, name))
        return
    _write(out, {})
    for line in asked:
        _write(out, call(called, json.loads(line), name))


def call(function: Callable[..., Any], question: dict[str, Any], name: str) -> dict[str, Any]:
    """The function's score of one answer, or what went wrong and where."""
    try:
        said = function(question["answer"], question["case"])
        told = said if isinstance(said, dict) else {"score": said}
        score = float(told["score"])
        if not math.isfinite(score):
            raise ValueError(f"it returned {score}, which is no score")
        return {"score": score, "why": str(told.get("why", ""))}
    except BaseException as error:  # noqa: BLE001 - as above
        return describe_error(error, name)


def describe_error(error: BaseException, name: str) -> dict[str, str]:
    """What went wrong, and the last line of the user's file it went through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    if isinstance(error, SyntaxError) and error.filename == name:
        lines.append(error.lineno)
    return {"error": f"{type(error).__name__}: {error}"[:500], "where": f"{name}:{lines[-1]}" if lines else name}


def _write(out: Any, said: dict[str, Any]) -> None:
    out.write(json.dumps(said).encode() + b"\n")
    out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:3])
