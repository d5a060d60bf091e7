"""Recognisers that are plug-ins: entry-point group `espalier.recognizers`, name -> "module:function".

The function takes nothing and returns a `Recognizer`; it raises MissingExtra where its package or model is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from espalier.core.plugins import load_plugin
from espalier.data.pii.detect import Recognizer

GROUP = "espalier.recognizers"


def load_recognizers(names: Sequence[str]) -> tuple[Recognizer, ...]:
    """The named recognisers, ready. Raises NotFound for an unknown one, MissingExtra for one that cannot run here."""
    return tuple(_load(name) for name in names)


def _load(name: str) -> Recognizer:
    make: Callable[[], Recognizer] = load_plugin(GROUP, name)
    return make()
