"""A run's event log: appended whole, read while it grows."""

from __future__ import annotations

import threading

import pytest

from espalier.core.errors import NotFound
from espalier.core.events import Event
from espalier.core.types import Run
from espalier.store.store import Store


def test_events_come_back_in_order_with_their_data(store: Store) -> None:
    store.runs.create(Run(id="run_1", step="s@1"))
    emit = store.runs.emitter("run_1")
    sent = [Event("train.step", {"step": number, "text": "grüße\n"}, at_ms=number) for number in range(5)]
    for event in sent:
        emit(event)
    assert list(store.runs.events("run_1")) == sent


def test_a_follower_sees_events_as_they_come_and_stops_when_the_run_ends(store: Store) -> None:
    store.runs.create(Run(id="run_1", step="s@1", status="running"))
    emit = store.runs.emitter("run_1")
    emit(Event("one"))
    stream = store.runs.events("run_1", follow=True)
    assert next(stream).kind == "one"
    emit(Event("two"))
    assert next(stream).kind == "two"
    emit(Event("last"))
    store.runs.update("run_1", status="succeeded")
    assert [event.kind for event in stream] == ["last"]


def test_a_line_still_being_written_waits_for_its_end(store: Store) -> None:
    store.runs.create(Run(id="run_1", step="s@1", status="running"))
    log = store.runs.folder("run_1")
    log.mkdir(parents=True)
    (log / "events.jsonl").write_text('{"kind": "one", "at_ms": 1}\n{"kind": "tw')
    stream = store.runs.events("run_1", follow=True)
    assert next(stream).kind == "one"
    with (log / "events.jsonl").open("a") as rest:
        rest.write('o", "at_ms": 2}\n')
    assert next(stream).kind == "two"


def test_threads_that_emit_at_once_write_whole_lines(store: Store) -> None:
    store.runs.create(Run(id="run_1", step="s@1"))
    emit = store.runs.emitter("run_1")

    def chatter(name: int) -> None:
        for number in range(50):
            emit(Event("x", {"name": name, "number": number, "padding": "y" * 500}))

    threads = [threading.Thread(target=chatter, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = list(store.runs.events("run_1"))
    for name in range(4):
        assert [event.data["number"] for event in seen if event.data["name"] == name] == list(range(50))


def test_a_run_without_events_has_none_and_one_that_is_not_there_is_not_found(store: Store) -> None:
    store.runs.create(Run(id="run_1", step="s@1"))
    assert list(store.runs.events("run_1")) == []
    with pytest.raises(NotFound):
        list(store.runs.events("run_2"))
