"""Everything swappable is found through entry points; our own parts are declared in the same groups (pyproject.toml).

espalier.operations   module of @operation functions        espalier.steps     name -> Step
espalier.readers      suffix -> reader                       espalier.metrics   name -> metric
espalier.readers.engines   name -> reader chosen by a recipe instead of the suffix's own
espalier.blobs        URL scheme -> Blobs factory             espalier.cleaners  name -> cleaning step of a dataset
espalier.recognizers  name -> finder of personal data     espalier.tasks     kind -> task of a dataset
espalier.methods      name -> way to train         espalier.engines   kind -> maker of a ModelEngine
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from espalier.core.errors import EspalierError, MissingExtra, NotFound, did_you_mean

GROUPS = (
    "espalier.operations",
    "espalier.steps",
    "espalier.readers",
    "espalier.readers.engines",
    "espalier.cleaners",
    "espalier.tasks",
    "espalier.recognizers",
    "espalier.methods",
    "espalier.engines",
    "espalier.metrics",
    "espalier.blobs",
)


@functools.cache
def find_plugins(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of a group by name, nothing imported. On a clash ours wins: nobody shadows a built-in."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if point.name not in found or point.value.startswith("espalier."):
            found[point.name] = point
    return found


def load_plugin(group: str, name: str) -> Any:
    """Import and return plug-in `name`; raises NotFound, MissingExtra, or EspalierError when its import fails."""
    found = find_plugins(group)
    if name not in found:
        noun = group.rsplit(".", 1)[-1].removesuffix("s")
        raise NotFound(f"no {noun} called {name!r}", hint=did_you_mean(name, found))
    try:
        return found[name].load()
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{name} needs the package {error.name}", hint=f"pip install {error.name}") from error
    except AttributeError as error:
        raise EspalierError(f"plug-in {name} of {group} is broken: {error}", hint="reinstall the package") from error
