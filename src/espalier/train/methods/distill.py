"""`distill`: a student learns its teacher's distribution over next tokens, mixed with the answers themselves.

Logit-level distillation. Its other kind, sequence-level, is `data.generate` (the teacher writes the answers, kept as a
dataset version) followed by `sft`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from espalier.train.distillation.spec import DistillSpec
from espalier.train.method import Method, Prepared, Setting


def prepare(setting: Setting) -> Prepared:
    """The documents of `sft`, with the teacher's choices beside each learnt token."""
    from espalier.train.distillation.objective import Imitation
    from espalier.train.distillation.opening import open_teacher
    from espalier.train.distillation.teacher import teach, teach_strips
    from espalier.train.documents import lay_sources, lay_validation
    from espalier.train.laying import answers

    spec = setting.spec
    assert isinstance(spec, DistillSpec)
    laying = answers(setting.base.tokenizer, context_tokens=setting.context_tokens, overlong=spec.overlong)
    documents, validation = lay_sources(setting, laying), lay_validation(setting, laying)
    with open_teacher(setting, spec) as teacher:
        taught, watched = teach(setting, teacher, documents), teach_strips(setting, teacher, validation)
        objective = Imitation(spec.divergence, spec.temperature, spec.alpha, teacher.whole)
        identity = {"teacher": dict(teacher.key)}
    return Prepared(taught, objective, documents.audit, watched, identity=identity)


def list_files(spec: Any, folder: Path) -> Iterable[Path]:
    """The teacher's files: its digests are part of what is trained."""
    from espalier.nn.locate import anchor_base, list_base_files

    teacher = spec.teacher
    found = list(list_base_files(anchor_base(teacher.base, folder))) if teacher.base else []
    adapter = folder / teacher.adapter
    return [*found, *(sorted(adapter.iterdir()) if teacher.adapter and adapter.is_dir() else ())]


METHOD = Method("distill", DistillSpec, "learn a teacher's distribution over next tokens", prepare, list_files)
