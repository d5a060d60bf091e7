"""The fast tokenizer gives what Hugging Face's gives: every family, every script, any text."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from espalier.core.errors import InvalidInput, NotFound
from espalier.tokens.fast import WORTHWHILE_BYTES, FastTokenizer, load_fast_tokenizer

FAMILIES = {
    "gpt2": "gpt2",
    "llama3": "llama3",
    "qwen2": "qwen2",
    "o200k": "o200k",
    "starcoder": "starcoder",
    "tekken": "tekken",
    "bloom": "unnamed pattern",
    "kimi": "unnamed pattern",
    "deepseek": "unnamed pattern",
    "cl100k inverted": "llama3",
    "punctuation": "unnamed pattern",
    "literal": "unnamed pattern",
    "prefix": "gpt2",
    "lower case": "gpt2",
    "odd tokens": "gpt2",
    "llama2": "sentencepiece",
    "gemma": "sentencepiece",
    "mistral": "sentencepiece",
    "metaspace": "sentencepiece",
    "no prefix": "sentencepiece",
}
AWKWARD = [
    "",
    " ",
    "   ",
    "\n",
    "\r\n\r\n  \n",
    "   indented",
    "trailing   ",
    "▁▁ a▁b ▁",
    "xyzzy" * 40,
    " unmerged q! unmerged",
    "<|im_start|>user\nhi<|im_end|>\n<|im_end|>\u0338x",
    "a <mask> b <mask>c <|user|>   z dog dogs",
    "<s>[INST] hi</s> there",
    "\n\n\n\n\n a\n\n",
    "fox Fox FOX <tool>é e\u0301",
    "<|im_start|",
    "a" * 500,
    " " * 300,
    "漢" * 300,
    "don't DON'T doN'ſ 'S 'ſ",
    "\x00\x00\x00 \x00",
]
PARTS = [*"aZ'sſ \t\n\r019.,<é漢한\u0301▁", "<|im_start|>", "  ", "'ll", "<s>", "dog"]
SOME_TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(PARTS), max_size=40).map("".join),
    st.binary(max_size=60).map(lambda content: content.decode(errors="replace")),
)


@pytest.fixture(scope="module")
def fast(families: dict[str, Tokenizer]) -> dict[str, FastTokenizer]:
    made = {name: load_fast_tokenizer(backend) for name, backend in families.items()}
    for one in made.values():
        assert one.path.startswith("word cache"), one.reason  # and so it is used from the first text on
    return made


def _expected(backend: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_tokenizers_in_every_script(
    name: str, fast: dict[str, FastTokenizer], families: dict[str, Tokenizer], scripts: dict[str, str]
) -> None:
    texts = [*scripts.values(), " ".join(scripts.values()), *AWKWARD]
    found = fast[name].encode(pa.array(texts))

    assert fast[name].path == f"word cache: {FAMILIES[name]} family"
    assert found.type == pa.large_list(pa.int32())
    assert found.to_pylist() == _expected(families[name], texts)
    assert fast[name].count(pa.array(texts)).tolist() == [len(ids) for ids in found.to_pylist()]


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_tokenizers_on_random_bytes(
    name: str, fast: dict[str, FastTokenizer], families: dict[str, Tokenizer]
) -> None:
    chance = random.Random(5)
    texts = [chance.randbytes(chance.randrange(300)).decode(errors="replace") for _ in range(300)]

    assert fast[name].encode(pa.array(texts)).to_pylist() == _expected(families[name], texts)


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_tokenizers_for_every_character_beside_others(
    name: str, fast: dict[str, FastTokenizer], families: dict[str, Tokenizer]
) -> None:
    points = [*range(0xD800), *range(0xE000, 0x1FC00), *range(0xE0000, 0xE0200)]
    if name not in ("gpt2", "o200k", "qwen2", "deepseek"):
        points = points[:: len(name)]
    texts = [
        "".join(f"a{one} {one}{one}1{one}\n" for one in map(chr, points[start : start + 200]))
        for start in range(0, len(points), 200)
    ]

    assert fast[name].encode(pa.array(texts)).to_pylist() == _expected(families[name], texts)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=60)
@given(texts=st.lists(SOME_TEXT, max_size=5))
def test_ids_are_those_of_tokenizers_for_any_text(
    name: str, texts: list[str], fast: dict[str, FastTokenizer], families: dict[str, Tokenizer]
) -> None:
    assert fast[name].encode(pa.array(texts, pa.large_string())).to_pylist() == _expected(families[name], texts)


@pytest.mark.parametrize("name", FAMILIES)
def test_token_ends_are_those_of_tokenizers_in_bytes(
    name: str, fast: dict[str, FastTokenizer], families: dict[str, Tokenizer], scripts: dict[str, str]
) -> None:
    texts = [*scripts.values(), *AWKWARD]
    ids, ends = fast[name].encode_with_ends(pa.array(texts))

    assert ids.to_pylist() == _expected(families[name], texts)
    for text, found, encoding in zip(texts, ends.to_pylist(), families[name].encode_batch(texts), strict=True):
        wanted = [len(text[:end].encode()) for _, end in encoding.offsets]
        wanted = list(itertools.accumulate(wanted, max))
        if found[:1] == [0]:  # the space before the text, which tokenizers counts to the first character
            wanted[0] = 0
        assert found == wanted, text


def test_nulls_slices_chunks_and_small_strings_are_taken(fast: dict[str, FastTokenizer]) -> None:
    whole = pa.array(["not this", "one two", None, "", "three", "nor this"])
    column = pa.chunked_array([whole.slice(1, 2), whole.slice(3, 2)])
    one = fast["llama3"]
    expected = [one.encode(pa.array([text])).to_pylist()[0] for text in ("one two", "", "three")]
    expected.insert(1, None)

    assert one.encode(whole.slice(1, 4)).to_pylist() == expected
    assert one.encode(column).to_pylist() == expected
    assert one.encode(whole.cast(pa.large_string()).slice(1, 4)).to_pylist() == expected
    assert one.encode(pa.array([], pa.string())).to_pylist() == []
    assert one.encode(pa.array([None], pa.string())).to_pylist() == [None]
    assert one.count(whole.slice(1, 4)).tolist() == [len(expected[0]), 0, 0, len(expected[3])]
    assert one.encode_with_ends(whole.slice(2, 1))[1].to_pylist() == [None]


def test_text_at_the_very_end_of_its_buffer_is_the_same_as_before_others(fast: dict[str, FastTokenizer]) -> None:
    for text in ("a", " the", "seven77", "sixteen bytes 16", "more than sixteen bytes", "é", "漢"):
        content = text.encode()
        array = pa.LargeStringArray.from_buffers(1, pa.py_buffer(np.array([0, len(content)])), pa.py_buffer(content))
        roomy = pa.array([text, "and what follows, at some length"])
        assert fast["gpt2"].encode(array).to_pylist() == fast["gpt2"].encode(roomy).to_pylist()[:1]


def test_truncation_and_padding_in_the_file_are_not_for_whole_texts(families: dict[str, Tokenizer]) -> None:
    short = Tokenizer.from_str(families["gpt2"].to_str())
    short.enable_truncation(3)
    short.enable_padding(length=5)
    texts = ["one two three four five six seven", "a"]

    assert FastTokenizer(short).encode(pa.array(texts)).to_pylist() == _expected(families["gpt2"], texts)


def test_many_threads_get_the_same_ids(fast: dict[str, FastTokenizer], scripts: dict[str, str]) -> None:
    batches = [pa.array(list(scripts.values())[start:] * 20) for start in range(8)]
    alone = [fast["o200k"].encode(batch) for batch in batches]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fast["o200k"].encode, batches * 4))

    assert all(found.equals(alone[number % 8]) for number, found in enumerate(together))


def test_few_texts_do_not_pay_for_a_cache_and_get_the_same_ids(families: dict[str, Tokenizer]) -> None:
    one = FastTokenizer(families["gpt2"])
    small = pa.array(["a few words, no more", None])
    before = (one.encode(small), one.count(small).tolist(), one.encode_with_ends(small)[1])
    assert one._engine is None
    one.count(pa.array(["word " * (WORTHWHILE_BYTES // 5)]))

    assert one._engine is not None
    assert (one.encode(small), one.count(small).tolist(), one.encode_with_ends(small)[1]) == before


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "does not end in ByteLevel"),
        ({"pre_tokenizer": None}, "does not end in ByteLevel"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "Split", "pattern": {"Regex": r"(?<=a)b"}, "behavior": "Isolated", "invert": False},
                        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                    ],
                }
            },
            "at 0",
        ),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "Removed", "invert": False},
                        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                    ],
                }
            },
            "Split Removed",
        ),
    ],
)
def test_what_cannot_be_followed_goes_to_tokenizers_and_says_why(
    parts: dict[str, object],
    reason: str,
    families: dict[str, Tokenizer],
    settings: Callable[..., Tokenizer],
    scripts: dict[str, str],
) -> None:
    import json

    backend = settings(json.loads(families["gpt2"].to_str())["model"], **parts)
    one = FastTokenizer(backend)
    texts = [*scripts.values(), *AWKWARD]

    assert one.path == "tokenizers"
    assert reason in one.reason
    assert one.encode(pa.array(texts)).to_pylist() == _expected(backend, texts)
    assert one.count(pa.array(texts)).tolist() == [len(ids) for ids in _expected(backend, texts)]
    ids, ends = one.encode_with_ends(pa.array(texts))
    assert ids.to_pylist() == _expected(backend, texts)
    assert [len(row) for row in ends.to_pylist()] == [len(row) for row in ids.to_pylist()]


def test_another_kind_of_model_goes_to_tokenizers(scripts: dict[str, str]) -> None:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "The": 1, "lazy": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    one = FastTokenizer(backend)

    assert (one.path, one.reason) == ("tokenizers", "the model is WordLevel, not BPE")
    assert one.encode(pa.array([scripts["latin"]])).to_pylist() == _expected(backend, [scripts["latin"]])


def test_one_tokenizer_is_loaded_once_for_the_process(families: dict[str, Tokenizer], tmp_path: Path) -> None:
    families["gpt2"].save(str(tmp_path / "tokenizer.json"))

    assert load_fast_tokenizer(tmp_path) is load_fast_tokenizer(tmp_path / "tokenizer.json")
    assert load_fast_tokenizer(tmp_path) is load_fast_tokenizer(Tokenizer.from_str(families["gpt2"].to_str()))
    assert load_fast_tokenizer(tmp_path) is not load_fast_tokenizer(families["o200k"])


def test_a_file_that_changed_is_read_again(families: dict[str, Tokenizer], tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    families["gpt2"].save(str(file))
    before = load_fast_tokenizer(file)
    families["tekken"].save(str(file))

    assert load_fast_tokenizer(file).digest == load_fast_tokenizer(families["tekken"]).digest != before.digest


def test_a_missing_or_broken_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no tokenizer at"):
        load_fast_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_fast_tokenizer(tmp_path)
