"""What a server and its replicas say to each other, and which replica takes what."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.errors import EspalierError, InvalidInput, RateLimited, from_json
from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import Message, ResponseFormat, SamplingSpec, TokenLogprob, Tool, ToolCall, Usage
from espalier.serve.replicas.dispatch import choose_replica
from espalier.serve.replicas.frames import (
    FrameLine,
    decode_delta,
    decode_request,
    encode_delta,
    encode_error,
    encode_request,
)

counts = st.integers(0, 10**6)
leaves = st.builds(TokenLogprob, counts, st.binary(max_size=6), st.floats(-50, 0), st.just(()))
tokens = st.builds(
    TokenLogprob, counts, st.binary(max_size=6), st.floats(-50, 0), st.lists(leaves, max_size=3).map(tuple)
)
deltas = st.builds(
    Delta,
    st.text(),
    st.sampled_from([None, "stop", "length", "tool_calls", "cancelled"]),
    st.none() | st.builds(Usage, prompt_tokens=counts, completion_tokens=counts, cached_tokens=counts),
    st.integers(0, 7),
    st.lists(tokens, max_size=3).map(tuple),
    st.lists(st.builds(ToolCall, st.text(), st.text(), st.text()), max_size=2).map(tuple),
    st.none() | st.text(),
)


@given(deltas)
def test_a_piece_of_an_answer_arrives_as_it_was_sent(delta: Delta) -> None:
    assert decode_delta(orjson.loads(orjson.dumps(encode_delta(delta)))) == delta


def test_a_request_arrives_with_every_word_it_has() -> None:
    request = ChatRequest(
        "req_1",
        "builtin:seedling",
        "a" * 64,
        [Message("user", "Grüße \U0001f331"), Message("assistant", "x", tool_calls=(ToolCall("1", "f", "{}"),))],
        SamplingSpec(
            max_tokens=3,
            temperature=0.5,
            logit_bias=((1, -2.0),),
            seed=7,
            stop=("\n",),
            n=2,
            logprobs=1,
            format=ResponseFormat(kind="regex", text="[ab]+"),
        ),
        tools=(Tool(name="f", parameters={"type": "object"}),),
        tool_choice="required",
        flow="flow",
        lane="batch",
        reservation="gold",
    )
    assert decode_request(orjson.loads(orjson.dumps(encode_request(request)))) == request


def test_an_error_of_ours_arrives_as_itself_and_of_another_only_its_kind() -> None:
    error = from_json(encode_error(RateLimited("full", hint="wait", retry_after_s=2.5)))
    assert isinstance(error, RateLimited) and (error.message, error.retry_after_s) == ("full", 2.5)
    hidden = from_json(encode_error(ValueError("the user's own words")))
    assert type(hidden) is EspalierError and "own words" not in str(hidden)


def test_frames_arrive_whole_and_in_order_however_the_bytes_are_cut() -> None:
    async def play() -> list[object]:
        ours, theirs = socket.socketpair()
        taken: list[object] = []
        lost = asyncio.Event()
        sender, reader = FrameLine(lambda frame: None, lambda: None), FrameLine(taken.append, lost.set)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: sender, sock=ours)
        await loop.create_unix_connection(lambda: reader, sock=theirs)
        for size in range(60):
            sender.send({"n": size, "text": "ö" * size * 997})
        sender.close()
        await lost.wait()
        return taken

    assert asyncio.run(play()) == [{"n": size, "text": "ö" * size * 997} for size in range(60)]


def test_a_request_with_a_number_beyond_64_bits_arrives_and_one_beyond_the_longest_frame_is_refused() -> None:
    async def play() -> list[object]:
        ours, theirs = socket.socketpair()
        taken: list[object] = []
        lost = asyncio.Event()
        sender, reader = FrameLine(lambda frame: None, lambda: None), FrameLine(taken.append, lost.set)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: sender, sock=ours)
        await loop.create_unix_connection(lambda: reader, sock=theirs)
        tool = Tool(name="count", parameters={"properties": {"n": {"maximum": 10**30}}})
        request = ChatRequest("r", "b", "", [Message("user", "ö?")], tools=(tool,))
        with pytest.raises(InvalidInput, match="64 MiB"):
            sender.send({"text": "x" * (64 << 20)})
        sender.send(encode_request(request))
        sender.close()
        await lost.wait()
        assert [decode_request(said).messages for said in taken] == [request.messages]  # type: ignore[arg-type]
        return taken

    assert '"maximum": 1e+30' in str(asyncio.run(play())).replace("'", '"')


def test_what_only_pythons_json_can_spell_does_not_end_the_line() -> None:
    taken: list[object] = []
    line = FrameLine(taken.append, lambda: None)
    for body in (b'{"n": NaN, "m": 1267650600228229401496703205376}', b'{"half": "\\ud800"}', b'{"n": 1}'):
        line.data_received(len(body).to_bytes(4, "big") + body)
    assert [str(each) for each in taken] == [
        "{'n': nan, 'm': 1267650600228229401496703205376}", "{'half': '\\ud800'}", "{'n': 1}",
    ]  # fmt: skip


@given(st.lists(st.integers(1, 40), max_size=20))
def test_a_frame_cut_anywhere_is_read_once_it_is_whole(cuts: list[int]) -> None:
    taken: list[object] = []
    line = FrameLine(taken.append, lambda: None)
    bodies = [orjson.dumps({"n": n}) for n in range(5)]
    wire = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    for cut in cuts:
        line.data_received(wire[:cut])
        wire = wire[cut:]
    line.data_received(wire)
    assert taken == [{"n": n} for n in range(5)]


@dataclass
class Carrier:
    number: int
    tokens: int = 0


def ask(adapter: str = "", system: str = "") -> ChatRequest:
    return ChatRequest("r", "b", adapter, [Message("system", system), Message("user", "?")])


def test_requests_that_begin_alike_under_one_adapter_go_to_one_replica() -> None:
    crew = [Carrier(number) for number in range(4)]
    favourites = [choose_replica(crew, ask(f"{n:064x}", "Be brief."), 100) for n in range(64)]
    assert favourites == [choose_replica(crew, ask(f"{n:064x}", "Be brief."), 100) for n in range(64)]
    assert {carrier.number for carrier in favourites if carrier} == {0, 1, 2, 3}


def test_a_favourite_that_carries_too_much_more_is_passed_over() -> None:
    crew = [Carrier(number) for number in range(4)]
    favourite = choose_replica(crew, ask("a"), 100)
    assert favourite is not None
    favourite.tokens = 100
    assert choose_replica(crew, ask("a"), 100) is favourite
    favourite.tokens = 101
    assert choose_replica(crew, ask("a"), 100) is not favourite


def test_when_one_goes_the_others_keep_their_favourites() -> None:
    crew = [Carrier(number) for number in range(5)]
    before = {n: choose_replica(crew, ask(str(n)), 0) for n in range(200)}
    gone = crew.pop(2)
    kept = [n for n, carrier in before.items() if carrier is not gone]
    assert all(choose_replica(crew, ask(str(n)), 0) is before[n] for n in kept)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6), st.integers(0, 300), st.text(max_size=4))
def test_nobody_is_chosen_who_carries_more_than_the_slack_above_the_least(
    loads: list[int], slack: int, adapter: str
) -> None:
    crew = [Carrier(number, tokens) for number, tokens in enumerate(loads)]
    chosen = choose_replica(crew, ask(adapter), slack)
    assert chosen is not None and chosen.tokens <= min(loads) + slack


def test_of_nobody_nobody_is_chosen() -> None:
    assert choose_replica(list[Carrier](), ask(), 0) is None


def test_a_frame_longer_than_any_of_ours_ends_the_line() -> None:
    async def play() -> bool:
        ours, theirs = socket.socketpair()
        lost = asyncio.Event()
        await asyncio.get_running_loop().create_unix_connection(
            lambda: FrameLine(lambda frame: pytest.fail("no frame was whole"), lost.set), sock=theirs
        )
        ours.sendall(b"\xff\xff\xff\xff")
        await asyncio.wait_for(lost.wait(), 20)
        ours.close()
        return lost.is_set()

    assert asyncio.run(play())
