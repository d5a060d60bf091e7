"""A teacher's likeliest tokens at every row a student learns, computed once before training and kept by content.

Knows teachers by what they say of packs or of ids; knows no objective and no loop.

Legend: r rows, k tokens of each, c vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from espalier.core.errors import DigestMismatch, InvalidInput
from espalier.core.events import Event
from espalier.nn.adapters import continue_adapters
from espalier.nn.backbone import Backbone
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.probe import transformer_backbone
from espalier.nn.top import top_logp
from espalier.tokens.pack import Strip, fill, join
from espalier.train.corpus import Documents
from espalier.train.distillation.kept import CHOICE, Choices, Rows, Shelf, is_whole, write_choices
from espalier.train.distillation.objective import IDS, LOGP, cooled
from espalier.train.documents import ExtendedDocuments
from espalier.train.method import Setting
from espalier.train.parallel import Share, World, one_thread_each
from espalier.train.plan import Strips

BLOCK_ROWS = 1 << 14  # what a kill may cost


class Teacher(Protocol):
    """Says which k tokens it finds likeliest at each row; `key` is what decides its numbers beside the tokens."""

    @property
    def k(self) -> int: ...

    @property
    def whole(self) -> bool:
        """Whether the k tokens are the vocabulary."""
        ...

    @property
    def key(self) -> Mapping[str, Any]: ...

    def choose(self, strips: Sequence[Strip]) -> list[Choices]:
        """Its choices (r, k) for the rows of each strip."""
        ...


@dataclass(frozen=True, slots=True)
class LocalTeacher:
    """A model in this process."""

    backbone: Backbone
    k: int
    limit: int  # ids the student has
    whole: bool
    temperature: float
    pack_tokens: int
    key: Mapping[str, Any]

    def choose(self, strips: Sequence[Strip]) -> list[Choices]:
        found: list[Choices] = [np.zeros((0, self.k), CHOICE)] * len(strips)
        head = cooled(self.backbone.head(), self.temperature)
        for members in fill([len(strip) for strip in strips], pack_tokens=self.pack_tokens, seed=""):
            with torch.no_grad():
                hidden = self.backbone.hidden(join([strips[index] for index in members]))
                ids, logp = top_logp(hidden, head, self.k, limit=self.limit)
            choices = np.empty(ids.shape, CHOICE)
            choices["id"], choices["logp"] = ids.cpu().numpy(), logp.cpu().numpy()
            ends = np.cumsum([len(strips[index].rows) for index in members])
            for index, part in zip(members, np.split(choices, ends[:-1]), strict=True):
                found[index] = part
        return found


def open_local(setting: Setting, name: str, adapter: str, k: int, temperature: float) -> LocalTeacher:
    """The teacher `name` (builtin:NAME, path:DIR, hf:OWNER/NAME), with the adapter in folder `adapter`.

    Raises what loading raises, and DigestMismatch for a teacher that cuts text otherwise than its student.
    """
    base = load_base(name)
    check_tokenizers(base.tokenizer_digest, name, setting.base)
    adapters = continue_adapters(base, Path(adapter), dropout=0.0) if adapter else None
    backbone = transformer_backbone(base.model, adapters.named_parameters() if adapters else {})
    own, theirs = len(setting.backbone.head().matrix), len(backbone.head().matrix)
    limit = min(own, theirs)
    kept = min(k, limit)
    weights = adapters.state() if adapters else {}
    key = {
        "version": 1,
        "teacher": base.base_digest,
        "adapter": _digest(weights),
        "arithmetic": [str(base.dtype), str(base.device), torch.__version__],
        "k": kept,
        "limit": limit,
        "temperature": temperature,
        "pack_tokens": setting.spec.pack_tokens,  # a product of another shape may round otherwise
    }
    whole = kept == own == theirs
    return LocalTeacher(backbone, kept, limit, whole, temperature, setting.spec.pack_tokens, key)


def check_tokenizers(teacher_digest: str, name: str, student: LoadedBase) -> None:
    """Raises DigestMismatch unless both cut text into the same ids."""
    if teacher_digest != student.tokenizer_digest:
        raise DigestMismatch(
            f"the teacher {name} has another tokenizer than the student {student.spec}: its probabilities are of "
            "other tokens",
            hint="let it write the answers instead (`espalier data generate`) and train `method: sft` on them",
        )


def teach(setting: Setting, teacher: Teacher, documents: Documents) -> ExtendedDocuments:
    """The documents with the teacher's choices beside each row. Raises InvalidInput for numbers that are not finite."""
    shelf = Shelf(setting.cache_dir / "teacher", teacher.key)
    spans = _cut(documents)
    counts = [len(documents.strip(number).rows) for number in range(len(documents))]
    paths: list[Path] = []
    missing: list[range] = []
    for span in spans:
        paths.append(shelf.path([documents.strip(number) for number in span]))
        if not is_whole(paths[-1], sum(counts[number] for number in span), teacher.k):
            missing.append(span)

    def compute(index: int) -> Share:
        strips = [documents.strip(number) for number in missing[index]]
        write_choices(shelf.path(strips), _check(np.concatenate(teacher.choose(strips)), strips))
        return Share()

    with _world_of(setting) as world:
        for done, _ in enumerate(world.each(len(missing), compute), 1):
            setting.emit(Event("train.teacher", {"blocks": done, "of": len(missing)}))
    rows = [sum(counts[number] for number in span) for span in spans]
    ends = np.cumsum(counts)
    extras = {IDS: (Rows(paths, rows, "id"), ends), LOGP: (Rows(paths, rows, "logp"), ends)}
    return ExtendedDocuments(documents, extras, str(sorted(teacher.key.items())))


def teach_strips(setting: Setting, teacher: Teacher, strips: Sequence[Strip]) -> list[Strip]:
    """Strips with the teacher's choices beside each row."""
    taught = teach(setting, teacher, Strips(strips))
    return [taught.strip(number) for number in range(len(taught))]


def _cut(documents: Documents) -> list[range]:
    """Runs of documents of about `BLOCK_ROWS` tokens each, so that a block holds no more rows than that."""
    spans, start, total = [], 0, 0
    for number, length in enumerate(documents.lengths):
        total += int(length)
        if total >= BLOCK_ROWS:
            spans.append(range(start, number + 1))
            start, total = number + 1, 0
    return [*spans, range(start, len(documents))] if start < len(documents) else spans


def _check(choices: Choices, strips: Sequence[Strip]) -> Choices:
    if not np.isfinite(choices["logp"]).all():
        raise InvalidInput(
            f"the teacher gives log-probabilities that are not finite, among {', '.join(s.id for s in strips[:4])} ...",
            hint="look at these examples; a teacher that overflows in bf16 may not in float32",
        )
    return choices


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].numpy().tobytes())
    return digest.hexdigest() if tensors else ""


def _world_of(setting: Setting) -> AbstractContextManager[World]:
    if setting.world is not None:
        return nullcontext(setting.world)
    return one_thread_each(os.cpu_count() or 1)
