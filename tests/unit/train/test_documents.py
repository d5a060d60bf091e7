"""Documents of a mix: laid out once, found again, rebuilt when damaged, and long ones by policy."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from espalier.core.errors import InvalidInput
from espalier.core.events import Event, ignore
from espalier.core.types import Example, Message
from espalier.store.examples import write_examples
from espalier.tokens.tokenizer import ChatTokenizer, load_tokenizer
from espalier.train import documents as module
from espalier.train.corpus import Source
from espalier.train.documents import ExtendedDocuments, MixedDocuments, lay_sources, lay_validation
from espalier.train.laying import Laid, Laying, answers, lay_each
from espalier.train.method import Setting
from espalier.train.recipe import SftSpec, TrainSpec


def write(folder: Path, examples: Sequence[Example], split: str = "train") -> Path:
    write_examples(folder / "data" / f"{split}-00000.parquet", examples)
    return folder


def make_setting(tokenizer: ChatTokenizer, folder: Path, sources: Sequence[Source], **spec: Any) -> Setting:
    filled = SftSpec(**{"context_tokens": 64, **spec})
    return Setting(
        spec=filled,
        base=SimpleNamespace(tokenizer=tokenizer),  # type: ignore[arg-type]
        backbone=None,  # type: ignore[arg-type]
        sources=sources,
        context_tokens=filled.context_tokens,
        cache_dir=folder / "cache",
        emit=ignore,
    )


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> ChatTokenizer:
    return load_tokenizer(tiny_base)


@pytest.fixture
def setting(tokenizer: ChatTokenizer, dataset: Path, tmp_path: Path) -> Setting:
    return make_setting(tokenizer, tmp_path, [Source("", dataset)], context_tokens=200)


class Counted:
    """A laying that counts how many examples it was given."""

    def __init__(self, setting: Setting) -> None:
        self.examples = 0
        inner = answers(setting.base.tokenizer, context_tokens=setting.context_tokens, overlong=setting.spec.overlong)

        def lay(examples: Sequence[Example]) -> Sequence[Laid]:
            self.examples += len(examples)
            return inner.lay(examples)

        self.laying = replace(inner, lay=lay)


def lay(setting: Setting) -> tuple[MixedDocuments, int]:
    counted = Counted(setting)
    return lay_sources(setting, counted.laying), counted.examples


def test_the_second_run_of_the_same_key_tokenizes_nothing_and_sees_the_same(setting: Setting) -> None:
    first, made = lay(setting)
    again, made_again = lay(setting)
    assert (made, made_again) == (40, 0)
    assert first.digest == again.digest
    assert first.audit == again.audit
    for one, other in zip(map(first.strip, range(40)), map(again.strip, range(40)), strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.rows, other.rows)


def test_the_strips_are_those_of_one_example_at_a_time(setting: Setting, dataset: Path) -> None:
    from espalier.store.examples import read_examples
    from espalier.tokens.mask import tokenize
    from espalier.tokens.pack import lay as lay_one

    found, _ = lay(setting)
    for index, example in enumerate(read_examples(dataset, "train")):
        expected, strip = lay_one(tokenize(setting.base.tokenizer, example, context_tokens=200)), found.strip(index)
        for name in ("ids", "positions", "segments", "rows", "targets", "weights", "sequences"):
            np.testing.assert_array_equal(getattr(strip, name), getattr(expected, name), err_msg=name)
        assert found.lengths[index] == len(expected)


@pytest.mark.parametrize("change", ["data", "context", "overlong", "template", "laying"])
def test_whatever_changes_the_strips_changes_the_key(setting: Setting, dataset: Path, change: str) -> None:
    lay(setting)
    spec, base, laying = setting.spec, setting.base.tokenizer, None
    context = setting.context_tokens
    if change == "data":
        write(dataset, [Example("new", [Message("user", "a"), Message("assistant", "b")])])
    elif change == "context":
        context = 100
    elif change == "overlong":
        spec = spec.model_copy(update={"overlong": "split"})
    elif change == "template":
        base = replace(base, template=base.template + "{# other #}")
    else:
        laying = lay_each("mine/1", lambda example: Laid(dropped="not today"))
    other = replace(setting, spec=spec, base=SimpleNamespace(tokenizer=base), context_tokens=context)  # type: ignore[arg-type]
    if laying is not None:
        with pytest.raises(InvalidInput, match="not today"):
            lay_sources(other, laying)
    else:
        assert lay(other)[1] > 0


def test_a_damaged_cache_is_noticed_and_made_again(setting: Setting) -> None:
    first, _ = lay(setting)
    (path,) = (setting.cache_dir / "tokens").glob("*.strips")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    seen: list[Event] = []
    again, made = lay(replace(setting, emit=seen.append))
    assert made == 40
    assert again.digest == first.digest
    assert any("made again" in event.data.get("message", "") for event in seen)


def _lay_in_child(arguments: tuple[Path, Path, Path]) -> tuple[str, int]:
    base, dataset, folder = arguments
    found, made = lay(make_setting(load_tokenizer(base), folder, [Source("", dataset)], context_tokens=200))
    return found.digest, made


def test_two_processes_that_start_together_make_the_file_once(tiny_base: Path, dataset: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        outcomes = pool.map(_lay_in_child, [(tiny_base, dataset, tmp_path)] * 2, chunksize=1)
    assert len({digest for digest, _ in outcomes}) == 1
    assert sorted(made for _, made in outcomes) == [0, 40]


def test_a_run_that_dies_while_it_tokenizes_leaves_nothing(setting: Setting) -> None:
    def die(examples: Sequence[Example]) -> Sequence[Laid]:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        lay_sources(setting, Laying("dies/1", die))
    assert [path.suffix for path in (setting.cache_dir / "tokens").iterdir()] == [".lock"]


def test_long_work_tells_how_far_it_is(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TELL_EVERY_S", -1.0)
    monkeypatch.setattr(module, "BATCH_EXAMPLES", 16)
    seen: list[Event] = []
    lay(replace(setting, emit=seen.append))
    told = [event.data["examples"] for event in seen if event.kind == "train.tokenize"]
    assert told == [16, 32, 40]


def test_a_mix_numbers_its_datasets_through(tokenizer: ChatTokenizer, dataset: Path, tmp_path: Path) -> None:
    general = write(tmp_path / "general", [Example(f"t{n}", text="the quick fox " * (n + 1)) for n in range(5)])
    setting = make_setting(
        tokenizer, tmp_path, [Source("", dataset), Source("general", general, share=0.5)], context_tokens=200
    )
    found, _ = lay(setting)
    assert [(part.name, part.start, part.stop, part.share) for part in found.parts] == [
        ("", 0, 40, 1.0),
        ("general", 40, 45, 0.5),
    ]
    assert found.strip(40).id == "t0"
    assert found.audit.tokens == int(found.lengths.sum())
    assert found.digest != lay(replace(setting, sources=setting.sources[:1]))[0].digest
    with pytest.raises(IndexError):
        found.strip(45)


def test_extended_documents_carry_their_numbers_through_the_mix(setting: Setting) -> None:
    found, _ = lay(setting)
    ends = np.arange(1, len(found) + 1) * 2
    more = ExtendedDocuments(found, {"reference": (np.arange(2.0 * len(found)), ends)}, tag="reference/abc")
    assert more.strip(3).extras["reference"].tolist() == [6.0, 7.0]
    assert more.strip(0).extras["reference"].tolist() == [0.0, 1.0]
    assert more.parts == found.parts
    assert more.digest != found.digest


def test_validation_is_the_first_examples_of_its_split(setting: Setting) -> None:
    some = replace(setting, spec=setting.spec.model_copy(update={"validation_examples": 4}))
    laying = Counted(setting).laying
    assert [strip.id for strip in lay_validation(some, laying)] == [f"validation-{n}" for n in range(4)]
    (setting.sources[0].folder / "data" / "validation-00000.parquet").unlink()
    assert lay_validation(some, laying) == []


# What is too long


def long_text() -> Example:
    return Example("book", text="".join(f"the fox {n} jumps. " for n in range(60)))


def long_chat() -> Example:
    turns = [Message("system", "Be brief.")]
    for n in range(12):
        turns += [Message("user", f"What is {n}?"), Message("assistant", f"It is {n}.")]
    return Example("talk", turns)


@pytest.fixture
def lay_one(tokenizer: ChatTokenizer, tmp_path: Path) -> Callable[..., MixedDocuments]:
    def run(*examples: Example, **spec: Any) -> MixedDocuments:
        folder = write(tmp_path / "one", examples)
        return lay(make_setting(tokenizer, tmp_path, [Source("", folder)], **spec))[0]

    return run


def test_truncated_text_keeps_its_beginning_and_is_counted(lay_one: Callable[..., MixedDocuments]) -> None:
    found = lay_one(long_text())
    assert (len(found), found.audit.truncated, found.audit.split) == (1, 1, 0)
    assert found.lengths.tolist() == [63]


def test_split_text_loses_and_doubles_no_token(
    lay_one: Callable[..., MixedDocuments], tokenizer: ChatTokenizer
) -> None:
    found = lay_one(long_text(), overlong="split")
    whole = [*tokenizer.encode(long_text().text), tokenizer.eos_id]
    strips = [found.strip(n) for n in range(len(found))]
    assert [token for strip in strips for token in strip.ids.tolist()] == whole[:-1]
    assert [token for strip in strips for token in strip.targets.tolist()] == whole[1:]
    assert (found.audit.truncated, found.audit.split, found.audit.examples) == (0, 1, 1)
    assert max(found.lengths) <= 63
    assert [strip.id for strip in strips[:2]] == ["book", "book#2"]


def test_a_split_chat_breaks_before_a_question_and_keeps_the_system_turn_in_each_piece(
    lay_one: Callable[..., MixedDocuments], tokenizer: ChatTokenizer
) -> None:
    found = lay_one(long_chat(), overlong="split", context_tokens=100)
    strips = [found.strip(n) for n in range(len(found))]
    assert len(strips) > 2
    texts = [tokenizer.decode(strip.ids.tolist(), skip_special=False) for strip in strips]
    assert all(text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n") for text in texts)
    learnt = "".join(tokenizer.decode(strip.targets.tolist(), skip_special=False) for strip in strips)
    assert learnt == "".join(f"It is {n}.<|im_end|>" for n in range(12))
    assert found.audit.truncated == 0


def test_an_exchange_that_fits_no_piece_loses_its_end_and_is_counted(lay_one: Callable[..., MixedDocuments]) -> None:
    example = long_chat()
    example.messages[4] = Message("assistant", "the fox " * 100)
    found = lay_one(example, overlong="split", context_tokens=100)
    assert (found.audit.truncated, found.audit.examples) == (1, 1)
    assert max(found.lengths) == 99


def test_refusing_names_the_first_and_how_many_and_writes_nothing(
    lay_one: Callable[..., MixedDocuments], tmp_path: Path
) -> None:
    short = Example("short", [Message("user", "Hi"), Message("assistant", "Yes")])
    with pytest.raises(InvalidInput, match=r"2 of 3 examples of the dataset are longer .* 64 tokens: book, talk"):
        lay_one(long_text(), short, long_chat(), overlong="refuse")
    assert not list((tmp_path / "cache" / "tokens").glob("*.strips"))
    assert len(lay_one(short, overlong="refuse")) == 1


def test_bad_examples_may_be_refused_instead_of_dropped(lay_one: Callable[..., MixedDocuments]) -> None:
    good = Example("good", [Message("user", "Hi"), Message("assistant", "Yes")])
    bad = Example("bad", [Message("user", "Hi")])
    assert lay_one(good, bad).audit.dropped == 1
    with pytest.raises(InvalidInput, match="1 of 2 examples of the dataset teach nothing: 1 ends on the user's turn"):
        lay_one(good, bad, bad_examples="refuse")


def test_the_spec_for_every_method_has_these_policies() -> None:
    assert {"overlong", "bad_examples", "mix", "validation_examples"} <= TrainSpec.model_fields.keys()
