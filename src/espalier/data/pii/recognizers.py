"""Recognisers that are plug-ins: entry-point group `espalier.recognizers`, name -> "module:function".

A recipe names one as `name` or `name:argument`. The function takes the argument ("" when there is none) and returns a
`detect.Recognizer`; it raises MissingExtra where its package or model is absent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from espalier.core.plugins import load_plugin
from espalier.data.pii.detect import Recognizer

GROUP = "espalier.recognizers"


def load_recognizers(named: Sequence[str]) -> tuple[Recognizer, ...]:
    """The named recognisers, ready. Raises NotFound for an unknown one, MissingExtra for one that cannot run here."""
    return tuple(_load(each) for each in named)


@functools.lru_cache(maxsize=8)
def _load(named: str) -> Recognizer:
    name, _, argument = named.partition(":")
    make: Callable[[str], Recognizer] = load_plugin(GROUP, name)
    return make(argument)
