"""Reference log-probabilities: right, computed once, kept by content, the same from any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from espalier.core.errors import DigestMismatch, InvalidInput
from espalier.core.events import Event, ignore
from espalier.nn.backbone import Backbone
from espalier.nn.base import LoadedBase, load_base
from espalier.nn.crossentropy import Head
from espalier.testing.tiny import make_tiny_base
from espalier.tokens.pack import Pack, Strip, join
from espalier.tokens.tokenizer import save_tokenizer, train_tokenizer
from espalier.train.method import Setting
from espalier.train.methods.dpo import DpoSpec
from espalier.train.parallel import one_thread_each
from espalier.train.plan import Strips
from espalier.train.preference import block
from espalier.train.preference.objectives import sequence_logp
from espalier.train.preference.reference import open_reference
from espalier.train.tuning import tune

from .conftest import draw_judged


@dataclass
class Counting:
    """A backbone that counts the packs it was asked for."""

    inner: Backbone
    packs: int = 0

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        return self.inner.parameters

    def hidden(self, pack: Pack) -> Tensor:
        self.packs += 1
        return self.inner.hidden(pack)

    def head(self) -> Head:
        return self.inner.head()


@pytest.fixture
def base(tiny_base: Path) -> LoadedBase:
    return load_base(f"path:{tiny_base}", dtype="float32")


@pytest.fixture
def setting(base: LoadedBase, tmp_path: Path) -> Setting:
    spec = DpoSpec(pack_tokens=128, lora={"rank": 4, "dropout": 0.2})
    backbone = Counting(tune(spec, base).backbone)
    return Setting(spec, base, backbone, (), 256, tmp_path / "cache", ignore, start=base.base_digest)


@pytest.fixture
def strips() -> list[Strip]:
    return [one.lay(str(n)) for n, one in enumerate(draw_judged(12, 2))]


def _count(setting: Setting) -> int:
    assert isinstance(setting.backbone, Counting)
    return setting.backbone.packs


def _judge(setting: Setting, strips: Sequence[Strip]) -> list[list[float]]:
    return [strip.extras["reference"].tolist() for strip in open_reference(setting).judge_strips(strips)]


def test_it_is_what_the_policy_says_before_its_first_step_without_dropout(
    setting: Setting, strips: list[Strip]
) -> None:
    found = _judge(setting, strips)
    with torch.no_grad():
        alone = [sequence_logp(setting.backbone, join([strip])).tolist() for strip in strips]
    for one, other in zip(found, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-2)  # in bf16 where the machine computes in it


def test_a_second_run_computes_nothing(setting: Setting, strips: list[Strip]) -> None:
    first = _judge(setting, strips)
    computed = _count(setting)
    assert computed > 1
    assert _judge(setting, strips) == first
    assert _count(setting) == computed


def test_what_is_missing_is_computed_and_no_more(
    setting: Setting, strips: list[Strip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "BLOCK_TOKENS", 150)
    whole = _judge(setting, strips)
    files = sorted((setting.cache_dir / "reference").glob("*.safetensors"))
    assert len(files) > 3
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-5])
    content = bytearray(files[3].read_bytes())
    content[-3] ^= 1
    files[3].write_bytes(bytes(content))
    before, events = _count(setting), list[Event]()
    assert _judge(replace(setting, emit=events.append), strips) == whole
    assert 3 <= _count(setting) - before < before
    assert [event.data for event in events] == [{"blocks": n, "of": 3} for n in (1, 2, 3)]


def test_other_weights_or_other_tokens_are_other_numbers(setting: Setting, strips: list[Strip]) -> None:
    _judge(setting, strips)
    before = _count(setting)
    _judge(replace(setting, start="other weights"), strips)
    between = _count(setting)
    assert between - before == before
    _judge(setting, [replace(strips[0], targets=strips[0].targets[::-1].copy()), *strips[1:]])
    assert _count(setting) - between == before


def test_any_number_of_cores_gives_the_same_bytes(setting: Setting, strips: list[Strip], tmp_path: Path) -> None:
    written = []
    for workers in (1, 3):
        cache = tmp_path / str(workers)
        with one_thread_each(workers) as world:
            _judge(replace(setting, cache_dir=cache, world=world), strips)
        written.append({path.name: path.read_bytes() for path in cache.rglob("*.safetensors")})
    assert written[0] == written[1] != {}


def test_documents_keep_their_own_values(setting: Setting, strips: list[Strip]) -> None:
    documents = open_reference(setting).judge(Strips(strips))
    forward = [documents.strip(n).extras["reference"].tolist() for n in range(12)]
    backward = [strip.extras["reference"].tolist() for strip in open_reference(setting).judge_strips(strips[::-1])]
    for one, other in zip(forward, backward[::-1], strict=True):
        assert one == pytest.approx(other, rel=1e-2)
    assert documents.digest != open_reference(replace(setting, start="other")).judge(Strips(strips)).digest


def test_another_model_can_be_the_reference(
    setting: Setting, strips: list[Strip], tiny_base: Path, tmp_path: Path
) -> None:
    same = [one.extras["reference"] for one in open_reference(setting, f"path:{tiny_base}").judge_strips(strips)]
    own = [np.array(values) for values in _judge(setting, strips)]
    for one, two in zip(same, own, strict=True):
        assert one == pytest.approx(two, rel=1e-2)
    other = make_tiny_base(tmp_path / "other", seed=9)
    moved = [one.extras["reference"] for one in open_reference(setting, f"path:{other}").judge_strips(strips)]
    assert not np.allclose(np.concatenate(moved), np.concatenate(own), rtol=0.05)


def test_a_reference_with_another_tokenizer_is_refused(setting: Setting, tmp_path: Path) -> None:
    other = make_tiny_base(tmp_path / "other", seed=9)
    save_tokenizer(train_tokenizer(["other words"], vocabulary=270), other, context_tokens=512)
    with pytest.raises(DigestMismatch, match="another tokenizer"):
        open_reference(setting, f"path:{other}")


def test_a_reference_that_overflows_names_its_examples(setting: Setting, strips: list[Strip]) -> None:
    @dataclass
    class Broken(Counting):
        def hidden(self, pack: Pack) -> Tensor:
            return super().hidden(pack) * float("inf")

    with pytest.raises(InvalidInput, match=r"a sequence of .*3.* nan"):
        _judge(replace(setting, backbone=Broken(setting.backbone)), strips[3:4])
    assert not list(setting.cache_dir.rglob("*.safetensors"))
