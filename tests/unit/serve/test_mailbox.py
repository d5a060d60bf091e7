from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from espalier.core.errors import EspalierError, Unavailable
from espalier.core.ports import Delta
from espalier.core.types import TokenLogprob, ToolCall, Usage
from espalier.serve.mailbox import Mailbox


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


async def take_all(mailbox: Mailbox, until: int) -> list[Delta]:
    taken: list[Delta] = []
    while sum(delta.finish_reason is not None for delta in taken) < until:
        taken.append(await mailbox.get())
    return taken


def test_every_piece_arrives_in_order_from_another_thread() -> None:
    async def pass_on() -> list[Delta]:
        mailbox = Mailbox(60)

        def write() -> None:
            for number in range(5000):
                mailbox.put(Delta(f"{number} "))
            mailbox.put(Delta("", "stop"))

        writer = threading.Thread(target=write)
        writer.start()
        taken = await take_all(mailbox, 1)
        writer.join()
        return taken

    taken = run(pass_on())
    assert "".join(delta.text for delta in taken) == "".join(f"{number} " for number in range(5000))


def test_a_reader_who_lags_finds_few_pieces_that_hold_everything() -> None:
    async def lag() -> tuple[int, list[Delta]]:
        mailbox = Mailbox(60)
        for number in range(3000):
            token = TokenLogprob(number, b"x", -1.0)
            calls = (ToolCall(str(number), "find", "{}"),) if number % 1000 == 999 else ()
            usage = Usage(prompt_tokens=1, completion_tokens=number)
            mailbox.put(Delta("ab"[number % 2], index=number % 2, usage=usage, logprobs=(token,), tool_calls=calls))
        for index in (0, 1):
            mailbox.put(Delta(".", "length", index=index))
        return len(mailbox), await take_all(mailbox, 2)

    kept, taken = run(lag())
    assert kept <= 66
    for index in (0, 1):
        own = [delta for delta in taken if delta.index == index]
        assert "".join(delta.text for delta in own) == "ab"[index] * 1500 + "."
        assert [token.id for delta in own for token in delta.logprobs] == list(range(index, 3000, 2))
        assert own[-1].finish_reason == "length"
    assert sum(len(delta.tool_calls) for delta in taken) == 3
    assert [delta.usage.completion_tokens for delta in taken if delta.usage] == sorted(
        delta.usage.completion_tokens for delta in taken if delta.usage
    )


def test_patience_ends_when_nothing_is_taken_and_begins_anew_with_each_piece_taken() -> None:
    async def wait() -> list[bool]:
        now = [0.0]
        mailbox = Mailbox(10, clock=lambda: now[0])
        patient = []
        for seconds in (0.0, 9.0, 10.0):
            now[0] = seconds
            patient.append(mailbox.put(Delta("x")))
        await mailbox.get()
        for seconds in (19.0, 20.5):
            now[0] = seconds
            patient.append(mailbox.put(Delta("x")))
        return patient

    assert run(wait()) == [True, True, True, True, False]


def test_an_error_is_raised_after_what_came_before_it() -> None:
    async def fail() -> str:
        mailbox = Mailbox(60)
        for piece in (Delta("a"), Unavailable("the engine stopped")):
            mailbox.put(piece)
        text = (await mailbox.get()).text
        with pytest.raises(EspalierError, match="stopped"):
            await mailbox.get()
        return text

    assert run(fail()) == "a"


def test_nobody_reads_once_the_loop_is_closed() -> None:
    async def make() -> Mailbox:
        return Mailbox(60)

    assert asyncio.run(make()).put(Delta("x")) is False


def test_a_loop_that_closes_while_a_piece_is_put_is_a_reader_who_left() -> None:
    class Closing:
        def is_closed(self) -> bool:
            return False

        def call_soon_threadsafe(self, *args: Any) -> None:
            raise RuntimeError("Event loop is closed")

    async def put() -> bool:
        mailbox = Mailbox(60)
        mailbox._loop = Closing()  # type: ignore[assignment]
        return mailbox.put(Delta("x"))

    assert run(put()) is False
