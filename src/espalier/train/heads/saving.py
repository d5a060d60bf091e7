"""How a trained head is written: beside the adapter, alone, or into the model. Knows no training loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from espalier.nn.adapterfiles import origin_of
from espalier.nn.scorehead import ScoreHead, add_to_adapter, add_to_model, find_classifier
from espalier.train.method import Setting


def make_finish(setting: Setting) -> Callable[[Path, ScoreHead], None]:
    """What completes the folder of a run. Raises UnsupportedModel when what is to be written could not be loaded."""
    base = setting.base
    if setting.spec.tune == "full":
        classifier = find_classifier(base.config)
        return lambda folder, head: add_to_model(folder, head, classifier)
    origin = origin_of(base, dataset=setting.sources[0].digest)
    return lambda folder, head: add_to_adapter(folder, head, origin)
