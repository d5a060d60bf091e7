"""Finding a step by its name: a plug-in's (`train.sft`), or one of the user's own modules (`my_steps:clean`)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.plugins import load_plugin
from espalier.core.step import Step


def find_step(name: str, folder: Path) -> Step:
    """The declared step. `module:attribute` is imported from the Python path, then from `folder`.

    Raises NotFound with the nearest name, InvalidInput for what is no step.
    """
    found = _find_own(name, folder) if ":" in name else load_plugin("espalier.steps", name)
    if not isinstance(found, Step):
        raise InvalidInput(f"{name} is a {type(found).__name__}, not a step", hint="declare it with @step(...)")
    return found


def _find_own(name: str, folder: Path) -> object:
    module_name, _, attribute = name.partition(":")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # at the end: a file there never shadows an installed package
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise NotFound(
                f"no module {module_name} for step {name}", hint=f"put {module_name}.py in {folder}"
            ) from None
        raise
    except SyntaxError as error:
        raise InvalidInput(
            f"{module_name} is not Python: {error.msg}", where=f"{error.filename}:{error.lineno}"
        ) from None
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise NotFound(f"module {module_name} has no {attribute!r}", hint="name the decorated function") from None
