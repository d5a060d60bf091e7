"""`distill`: a student learns its teacher's distribution over next tokens, mixed with the answers themselves.

Logit-level distillation. Its other kind, sequence-level, is `data.generate` (the teacher writes the answers, kept as a
dataset version) followed by `sft`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from espalier.core.types import Spec
from espalier.train.method import Method, Prepared, Setting
from espalier.train.recipe import TrainSpec


class TeacherSpec(Spec):
    """Who teaches: a base on this machine, perhaps with an adapter, or an endpoint that tells log-probabilities."""

    base: str = Field("", description="builtin:NAME, path:DIR or hf:OWNER/NAME")
    adapter: str = Field("", description="folder of an adapter on it")
    endpoint: str = Field("", description="instead of a base: URL that ends in /v1 of a vLLM server")
    model: str = Field("", description="the endpoint's name of the model")
    key_env: str = Field("", description="environment variable that holds the endpoint's key; empty = none is sent")
    tokenizer: str = Field("", description="folder or Hub name of the endpoint's model, for its tokenizer")

    @model_validator(mode="after")
    def _check(self) -> TeacherSpec:
        if bool(self.base) == bool(self.endpoint):
            raise ValueError("name either a base or an endpoint")
        if self.endpoint and not (self.model and self.tokenizer):
            raise ValueError("an endpoint needs `model`, and `tokenizer`, to check that it cuts text alike")
        return self


class DistillSpec(TrainSpec):
    """Learn from a teacher of the same tokenizer."""

    teacher: TeacherSpec
    k: int = Field(64, ge=1, description="likeliest tokens kept of each position; all others count as one more")
    temperature: float = Field(1.0, gt=0, description="softens both distributions; 2 shows more of the unlikely tokens")
    divergence: Literal["forward", "reverse", "js"] = Field(
        "forward", description="KL(teacher | student), which covers; KL(student | teacher), which seeks; half of each"
    )
    alpha: float = Field(0.5, gt=0, le=1, description="share of the teacher's loss; the rest is the answers' own")

    @model_validator(mode="after")
    def _check_temperature(self) -> DistillSpec:
        if self.teacher.endpoint and self.temperature != 1.0:
            raise ValueError("temperature: an endpoint tells probabilities at temperature 1 only; leave it at 1")
        return self


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
