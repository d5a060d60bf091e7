"""Log-probabilities of every sequence under the reference, computed once and kept on disk by content.

The reference is the policy as it stands before its first step, or another model. A block of documents is one file,
named by all that decides its numbers: the weights, the arithmetic, and the very tokens. So an interrupted computation
goes on where it stood, a second run finds everything done, and two processes at once write the same bytes. Knows no
objective.

Legend: n sequences.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import accumulate
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
from espalier.tokens.pack import Int64, Strip, fill, join
from espalier.train.documents import ExtendedDocuments
from espalier.train.machine import compute_dtype
from espalier.train.method import Documents, Setting
from espalier.train.parallel import Share, World, one_thread_each
from espalier.train.plan import Strips
from espalier.train.preference.objectives import sequence_logp
from espalier.train.tuning import tune

BLOCK_TOKENS = 1 << 14  # computed on one core between two files
Float64 = npt.NDArray[np.float64]


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
        counts, values = [np.zeros(0)], [np.zeros(0)]
        blocks = _cut_blocks(documents.lengths)
        with _world_of(self.setting) as world:
            for block, share in zip(
                blocks, world.each(len(blocks), partial(self._share, documents, blocks)), strict=True
            ):
                counts.append(np.array(share.numbers[: len(block)]))
                values.append(np.array(share.numbers[len(block) :]))
                self.setting.emit(Event("train.reference", {"documents": block.stop, "of": len(documents)}))
        ends = np.cumsum(np.concatenate(counts)).astype(np.int64)
        return ExtendedDocuments(documents, {"reference": (np.concatenate(values), ends)}, self.key["weights"])

    def judge_strips(self, strips: Sequence[Strip]) -> list[Strip]:
        """Strips with the extra `reference`."""
        judged = self.judge(Strips(strips))
        return [judged.strip(number) for number in range(len(judged))]

    def _share(self, documents: Documents, blocks: Sequence[range], number: int) -> Share:
        """How many sequences each document of a block has, then their log-probabilities; kept on disk."""
        strips = [documents.strip(index) for index in blocks[number]]
        counts = [_count_sequences(strip) for strip in strips]
        path = self.setting.cache_dir / "reference" / f"{_name(self.key, strips)}.safetensors"
        found = _read(path, sum(counts))
        if found is None:
            found = _judge(self.backbone, strips, self.setting.spec.pack_tokens)
            write_file(path, save({"logp": found, "checksum": _checksum(found)}))
        return Share((*map(float, counts), *found.tolist()))


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
        backbone = tune(spec.model_copy(update={"tune": "head"}), base).backbone
        weights = base.base_digest
    key = {
        "version": 1,
        "weights": weights,
        "quantise": spec.quantise,
        "arithmetic": [str(compute_dtype(base.device)), *kernels_in_use(), type(backbone).__name__, torch.__version__],
        "pack_tokens": spec.pack_tokens,  # a product of other shape may round otherwise
    }
    return Reference(backbone, key, setting)


def _cut_blocks(lengths: Sequence[int] | Int64) -> list[range]:
    """Runs of documents of at most BLOCK_TOKENS, or one document."""
    starts, held = [0], 0
    for index, length in enumerate(lengths):
        if held and held + length > BLOCK_TOKENS:
            starts.append(index)
            held = 0
        held += int(length)
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True) if start < end]


def _judge(backbone: Backbone, strips: Sequence[Strip], pack_tokens: int) -> Float64:
    """The log-probabilities of a block's sequences, computed pack by pack without dropout."""
    ends = list(accumulate(map(_count_sequences, strips), initial=0))
    logp = np.empty(ends[-1], np.float64)
    for members in fill([len(strip) for strip in strips], pack_tokens=pack_tokens, seed="reference"):
        with torch.no_grad():
            sums = sequence_logp(backbone, join([strips[i] for i in members])).cpu().numpy()
        for index, own in zip(members, _split(sums, [_count_sequences(strips[i]) for i in members]), strict=True):
            if not np.isfinite(own).all():
                raise InvalidInput(
                    f"the reference gives {strips[index].id} a log-probability of {own.tolist()}",
                    hint="look at this example; a base in bf16 may overflow where float32 does not",
                )
            logp[ends[index] : ends[index + 1]] = own
    return logp


def _split(values: Float64, counts: Sequence[int]) -> Iterator[Float64]:
    return iter(np.split(values, list(accumulate(counts))[:-1]))


def _name(key: Mapping[str, Any], strips: Sequence[Strip]) -> str:
    """sha256 of all that decides a block's numbers."""
    digest = sha256(canonical_json(dict(key)))
    for strip in strips:
        parts = (strip.ids, strip.positions, strip.segments, strip.rows, strip.targets, strip.weights, strip.sequences)
        for part in parts:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


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
