"""The teacher a recipe names, opened for as long as it is asked. Knows no objective."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from espalier.train.distillation.teacher import Teacher, open_local
from espalier.train.method import Setting
from espalier.train.methods.distill import DistillSpec


@contextmanager
def open_teacher(setting: Setting, spec: DistillSpec) -> Iterator[Teacher]:
    """A base in this process, or an endpoint. Raises DigestMismatch for another tokenizer, and what opening raises."""
    wanted = spec.teacher
    yield open_local(setting, wanted.base, wanted.adapter, spec.k, spec.temperature)
