"""Log-probabilities of every sequence under the reference, computed once and kept on disk by content.

The reference is the policy as it stands before its first step, or another model. A block of documents is one file,
named by all that decides its numbers: the weights, the arithmetic, and the very tokens. So an interrupted computation
goes on where it stood, a second run finds everything done, and two processes at once write the same bytes. Knows no
objective.

Legend: n sequences.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load, save

from espalier.core.errors import DigestMismatch, InvalidInput
from espalier.core.events import Event
from espalier.core.ids import canonical_json
from espalier.nn.backbone import Backbone
from espalier.nn.base import load_base
from espalier.nn.kernels.compiling import kernels_in_use
from espalier.store.disk import write_file
from espalier.tokens.pack import Strip, join
from espalier.train.corpus import Documents
from espalier.train.documents import ExtendedDocuments
from espalier.train.machine import compute_dtype
from espalier.train.method import Setting
from espalier.train.parallel import Share, World, one_thread_each
from espalier.train.plan import Strips
from espalier.train.preference.block import Block, Float64, cut_spans
from espalier.train.preference.objectives import sequence_logp
from espalier.train.tuning import tune


@dataclass(frozen=True, slots=True)
class Reference:
    """A model that says how likely sequences are; `key` is what decides its numbers beside the tokens."""

    backbone: Backbone
    key: Mapping[str, Any]
    setting: Setting

    def judge(self, documents: Documents) -> ExtendedDocuments:
        """The documents with the extra `reference`, the log-probability of each sequence.

        Raises InvalidInput, naming the document, when one is not a finite number; StorageFull when none can be kept.
        """
        blocks = [Block(documents, span) for span in cut_spans(documents.lengths)]
        with _world_of(self.setting) as world:
            shares = world.each(len(blocks), lambda number: Share(self._recall(blocks[number])))
            for block, share in zip(blocks, shares, strict=True):
                block.take(share.numbers)
            self._complete(world, [block for block in blocks if block.logp is None])
        counts = np.concatenate([np.zeros(0, np.int64), *(block.counts for block in blocks)])
        values = np.concatenate([np.zeros(0), *(block.known for block in blocks)])
        return ExtendedDocuments(documents, {"reference": (values, np.cumsum(counts))}, self.key["weights"])

    def judge_strips(self, strips: Sequence[Strip]) -> list[Strip]:
        """Strips with the extra `reference`."""
        judged = self.judge(Strips(strips))
        return [judged.strip(number) for number in range(len(judged))]

    def _recall(self, block: Block) -> tuple[float, ...]:
        """How many sequences each document of a block has, then what an earlier run kept of them, if anything."""
        strips = block.strips()
        counts = [_count_sequences(strip) for strip in strips]
        found = _read(self._path(strips), sum(counts))
        return (*map(float, counts), *(() if found is None else found.tolist()))

    def _complete(self, world: World, missing: Sequence[Block]) -> None:
        """Compute what is not known, one pack at a time in every process, and keep each block once it is whole."""
        tasks = [(block, pack) for block in missing for pack in block.fill(self.setting.spec.pack_tokens)]
        done = 0
        for (block, pack), share in zip(
            tasks, world.each(len(tasks), lambda number: Share(self._compute(*tasks[number]))), strict=True
        ):
            block.put(pack, share.numbers)
            if not block.is_whole:
                continue
            done += 1
            self.setting.emit(Event("train.reference", {"blocks": done, "of": len(missing)}))
            if world.rank == 0:
                values = block.known
                write_file(self._path(block.strips()), save({"logp": values, "checksum": _checksum(values)}))

    def _compute(self, block: Block, members: Sequence[int]) -> tuple[float, ...]:
        """The log-probabilities of the sequences of some of a block's documents, without dropout."""
        strips = [block.documents.strip(block.span[member]) for member in members]
        with torch.no_grad():
            logp: list[float] = sequence_logp(self.backbone, join(strips)).tolist()
        if not np.isfinite(logp).all():
            raise InvalidInput(
                f"the reference gives a sequence of {', '.join(strip.id for strip in strips[:8])} the log-probability "
                f"{next(value for value in logp if not np.isfinite(value))}",
                hint="look at these examples; a base that overflows in bf16 may not in float32",
            )
        return tuple(logp)

    def _path(self, strips: Sequence[Strip]) -> Path:
        """Named by sha256 of all that decides a block's numbers."""
        digest = sha256(canonical_json(dict(self.key)))
        for strip in strips:
            own = (
                strip.ids,
                strip.positions,
                strip.segments,
                strip.rows,
                strip.targets,
                strip.weights,
                strip.sequences,
            )
            for part in own:
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(np.ascontiguousarray(part).tobytes())
        return self.setting.cache_dir / "reference" / f"{digest.hexdigest()}.safetensors"


def open_reference(setting: Setting, model: str = "") -> Reference:
    """The policy as it starts; or `model` (builtin:NAME, path:DIR, hf:OWNER/NAME), loaded frozen.

    Raises what loading a base raises, and DigestMismatch for a model of another tokenizer: it would read other words.
    """
    spec, base, backbone, weights = setting.spec, setting.base, setting.backbone, setting.start
    if model:
        base = load_base(model, dtype="float32", quantise=spec.quantise)
        if base.tokenizer_digest != setting.base.tokenizer_digest:
            raise DigestMismatch(
                f"the reference {model} has another tokenizer than {setting.base.spec}",
                hint="take a reference of the same family, or none: the policy as it starts",
            )
        spec = spec.model_copy(update={"tune": "head"})
        backbone = tune(spec, base).backbone
        weights = base.base_digest
    key = {
        "version": 1,
        "weights": weights,
        "quantise": spec.quantise,
        "tune": spec.tune,  # what learns is computed in another type than what is frozen
        "arithmetic": [str(compute_dtype(base.device)), *kernels_in_use(), type(backbone).__name__, torch.__version__],
        "pack_tokens": spec.pack_tokens,  # a product of other shape may round otherwise
    }
    return Reference(backbone, key, setting)


def _read(path: Path, count: int) -> Float64 | None:
    """What an earlier run wrote; None where there is nothing, or nothing whole."""
    try:
        held = load(path.read_bytes())
        found: Float64 = held["logp"]
        whole = found.shape == (count,) and np.array_equal(held["checksum"], _checksum(found))
    except (OSError, SafetensorError, KeyError):
        return None
    return found if whole else None


def _checksum(values: Float64) -> npt.NDArray[np.uint8]:
    return np.frombuffer(xxhash.xxh3_128_digest(values.tobytes()), np.uint8)


def _count_sequences(strip: Strip) -> int:
    return int(strip.sequences[-1]) + 1


def _world_of(setting: Setting) -> AbstractContextManager[World]:
    if setting.world is not None:
        return nullcontext(setting.world)
    return one_thread_each(os.cpu_count() or 1)
