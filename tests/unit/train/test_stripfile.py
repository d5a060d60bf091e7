"""Strips in a file: what goes in comes out, plain ones small, damage is found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import DigestMismatch
from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import Strip, lay, lay_branches
from espalier.train import stripfile
from espalier.train.stripfile import StripFile, StripWriter

TOKENS = st.lists(st.integers(0, 100_000), min_size=2, max_size=9)
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0])


@st.composite
def plain_strips(draw: st.DrawFn) -> Strip:
    ids = draw(TOKENS)
    weights = [0.0, *(draw(WEIGHTS) for _ in ids[2:]), 1.0]
    return lay(Tokenized(draw(st.text(max_size=3)), ids, weights))


@st.composite
def branching_strips(draw: st.DrawFn) -> Strip:
    answers = [(ids, [1.0] * len(ids)) for ids in draw(st.lists(TOKENS, min_size=1, max_size=3))]
    return lay_branches("é", draw(TOKENS), answers, {"logp": np.arange(len(answers), dtype=np.float32)})


def write(path: Path, strips: Sequence[Strip], note: dict[str, int] | None = None) -> StripFile:
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    writer = StripWriter(descriptor)
    writer.add(strips)
    writer.finish(note or {})
    os.close(descriptor)
    return StripFile(path)


def assert_same(one: Strip, other: Strip) -> None:
    for name in ("ids", "positions", "segments", "rows", "targets", "weights", "sequences"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right, err_msg=name)
    assert one.id == other.id
    assert one.extras.keys() == other.extras.keys()
    for name, values in one.extras.items():
        np.testing.assert_array_equal(values, other.extras[name])


@settings(max_examples=40)
@given(strips=st.lists(plain_strips(), max_size=6) | st.lists(branching_strips(), max_size=4), block=st.integers(1, 4))
def test_strips_come_out_as_they_went_in_however_they_fall_into_blocks(
    tmp_path_factory: pytest.TempPathFactory, strips: list[Strip], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stripfile, "BLOCK_STRIPS", block)
        found = write(tmp_path_factory.mktemp("strips") / "a", strips, {"documents": 3})
    assert len(found) == len(strips)
    assert found.lengths.tolist() == [len(strip) for strip in strips]
    assert found.note == {"documents": 3}
    for put, back in zip(strips, found, strict=True):
        assert_same(put, back)


def test_raw_text_costs_two_bytes_a_token_where_the_vocabulary_allows(tmp_path: Path) -> None:
    strips = [lay(Tokenized(str(n), list(range(1, 1001)), [0.0, *[1.0] * 999])) for n in range(50)]
    write(tmp_path / "a", strips)
    assert (tmp_path / "a").stat().st_size < 2 * 50 * 1000 + 3000


def test_the_digest_is_of_the_strips_and_not_of_the_note(tmp_path: Path) -> None:
    strip = lay(Tokenized("x", [1, 2, 3], [0.0, 1.0, 1.0]))
    other = lay(Tokenized("x", [1, 2, 4], [0.0, 1.0, 1.0]))
    a, b, c = write(tmp_path / "a", [strip]), write(tmp_path / "b", [strip], {"n": 1}), write(tmp_path / "c", [other])
    assert a.digest == b.digest != c.digest


@pytest.mark.parametrize("at", [9, -40, -3])
def test_a_flipped_bit_anywhere_is_found_on_opening(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a"
    write(path, [lay(Tokenized("x", list(range(50)), [0.0, *[1.0] * 49]))])
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    with pytest.raises(DigestMismatch, match="damaged"):
        StripFile(path)


@pytest.mark.parametrize("keep", [0, 20, 200])
def test_a_file_cut_short_is_found_on_opening(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a"
    write(path, [lay(Tokenized("x", list(range(50)), [0.0, *[1.0] * 49]))])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DigestMismatch):
        StripFile(path)


def test_asking_beyond_the_end_is_an_index_error(tmp_path: Path) -> None:
    found = write(tmp_path / "a", [lay(Tokenized("x", [1, 2], [0.0, 1.0]))])
    with pytest.raises(IndexError):
        found[1]
    assert_same(found[-1], found[0])
