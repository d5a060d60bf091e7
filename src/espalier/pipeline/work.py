"""Running one step's function, in whatever process: what it raises becomes one of our errors, with a traceback."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.core.errors import EspalierError, MissingExtra, StorageFull
from espalier.pipeline.catalog import find_step
from espalier.pipeline.context import RequestContext, Send


def run_step(request: Mapping[str, Any], send: Send) -> EspalierError | None:
    """Run the step `request` names; None when it did what it declares. The working folder is the caller's to set."""
    try:
        step = find_step(request["step"], Path(request["folder"]))
        context = RequestContext(request, send)
        step.function(context, step.spec.model_validate(request["spec"]))
        context.check_outputs()
    except EspalierError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a step is anyone's code: its crash becomes the run's error
        traceback.print_exc()
        return _translate(error, request["step"])
    return None


def _translate(error: Exception, step: str) -> EspalierError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{step}: the disk is full ({error.filename or 'while writing'})", hint="free some space")
    if isinstance(error, ModuleNotFoundError):
        return MissingExtra(f"{step} needs the package {error.name}", hint=f"pip install {error.name}")
    if isinstance(error, MemoryError):
        return EspalierError(f"{step} ran out of memory", hint="use a smaller batch or a larger machine")
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename}:{last.lineno}"
    return EspalierError(
        f"{step} crashed: {type(error).__name__}: {error}", where=where, hint="its log has the traceback"
    )
