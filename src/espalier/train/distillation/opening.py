"""The teacher a recipe names, open for as long as it is asked. Knows no objective."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from espalier.train.distillation.remote import open_remote
from espalier.train.distillation.spec import DistillSpec
from espalier.train.distillation.teacher import Teacher, open_local
from espalier.train.method import Setting


@contextmanager
def open_teacher(setting: Setting, spec: DistillSpec) -> Iterator[Teacher]:
    """A base in this process, or an endpoint. Raises DigestMismatch for another tokenizer, and what opening raises."""
    wanted = spec.teacher
    if wanted.base:
        yield open_local(setting, wanted.base, wanted.adapter, spec.k, spec.temperature)
        return
    with open_remote(setting, wanted, spec.k) as teacher:
        yield teacher
