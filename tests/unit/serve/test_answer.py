from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import bytes_to_unicode

from espalier.serve.answer import Detokenizer, StopFilter
from espalier.tokens.tokenizer import train_tokenizer

BYTES = train_tokenizer(["abc"], vocabulary=259)  # every token is one byte
BYTE_IDS = {byte: BYTES.backend.token_to_id(mark) for byte, mark in bytes_to_unicode().items()}


@given(st.text())
def test_pieces_join_to_the_decoded_whole_and_never_split_a_character(text: str) -> None:
    ids = BYTES.encode(text)
    detokenizer = Detokenizer(BYTES)
    pieces = [detokenizer.add(id) for id in ids]
    assert "".join(pieces) + detokenizer.flush() == BYTES.decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(st.binary(max_size=80))
def test_bytes_that_are_no_text_are_neither_lost_nor_held_for_ever(content: bytes) -> None:
    ids = [BYTE_IDS[byte] for byte in content]
    detokenizer, shown = Detokenizer(BYTES), ""
    for count, id in enumerate(ids, start=1):
        shown += detokenizer.add(id)
        whole = BYTES.decode(ids[:count])
        assert whole.startswith(shown) and len(whole) - len(shown) <= 3
        assert len(detokenizer._ids) - detokenizer._start <= 48
    assert shown + detokenizer.flush() == BYTES.decode(ids) == content.decode(errors="replace")


def test_a_character_that_follows_stray_bytes_is_shown_whole() -> None:
    detokenizer = Detokenizer(BYTES)
    pieces = [detokenizer.add(BYTE_IDS[byte]) for byte in b"\x80\x80\x80\xc7\xbe."]
    assert "".join(pieces) == "\ufffd\ufffd\ufffd\u01fe."


@pytest.mark.parametrize(
    ("pieces", "stops", "shown", "stopped"),
    [
        (["Hello ", "world"], [], "Hello world", False),
        (["Hello ", "wo", "rld", "!"], ["world"], "Hello ", True),
        (["a<", "/b", ">c"], ["</b>"], "a", True),
        (["a<", "/x", ">c"], ["</b>"], "a</x>c", False),
        (["one\n", "\ntwo"], ["\n\n", "two"], "one", True),
        (["aa", "ab"], ["aab"], "a", True),
        (["end<"], ["</b>"], "end<", False),
        (["abc"], ["abc", "b"], "a", True),
    ],
)
def test_text_ends_before_the_first_stop_string(pieces: list[str], stops: list[str], shown: str, stopped: bool) -> None:
    stop = StopFilter(stops)
    text = "".join(stop.add(piece) for piece in pieces) + stop.flush()
    assert (text, stop.stopped) == (shown, stopped)


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_however_a_text_is_cut_the_same_is_shown(text: str, stops: list[str]) -> None:
    whole, single = StopFilter(stops), StopFilter(stops)
    at_once = whole.add(text) + whole.flush()
    one_by_one = "".join(single.add(letter) for letter in text) + single.flush()
    assert at_once == one_by_one
    assert not any(stop in at_once for stop in stops)
    assert text.startswith(at_once)
    if not any(stop in text for stop in stops):
        assert at_once == text
