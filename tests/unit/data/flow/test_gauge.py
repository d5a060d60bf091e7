"""Progress inside one large source, told from its worker to whoever waits."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espalier.core.events import Event
from espalier.data.flow import gauge as module
from espalier.data.flow.gauge import Gauge, Teller
from espalier.data.flow.intake import read_sources
from espalier.data.flow.run import Flow
from espalier.data.flow.workers import open_spread
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.source import SourceFile, hash_file


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceFile:
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    seconds = itertools.count(
        step=1.0
    )  # a quick machine would have it read before there is a tenth of a second to tell
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {number} " + "x" * 300}) + "\n" for number in range(40_000)))
    return SourceFile(path, "a.jsonl", hash_file(path))


def test_one_large_file_tells_how_far_it_is_while_it_is_read(large: SourceFile, tmp_path: Path) -> None:
    events: list[Event] = []
    with open_spread(1) as spread:
        (found,) = read_sources(Flow(tmp_path / "cache", spread, events.append), [large], ReadOptions())
    told: list[dict[str, Any]] = [event.data for event in events if event.kind == "data.read"]
    shares = [data["bytes"] / data["of_bytes"] for data in told]
    assert shares == sorted(shares) and shares[-1] == 1.0 and any(0.1 < share < 0.9 for share in shares)
    assert any(data["eta_s"] > 0 for data in told) and told[-1]["documents"] == 40_000
    assert sum(part.rows for part in found.parts) == 40_000
    assert not list((tmp_path / "cache").rglob("*.progress"))


def test_notes_of_workers_are_added_to_what_is_done(tmp_path: Path) -> None:
    events: list[Event] = []
    notes = [tmp_path / f"{number}.progress" for number in range(3)]
    gauge = Gauge(events.append, notes, [100, 100, 200])
    notes[0].write_text("40 4")
    notes[2].write_text("torn")
    gauge.tick()
    gauge.finish(10)
    notes[1].write_text("50 5")
    gauge.tick()
    assert (events[0].data["bytes"], events[0].data["documents"]) == (40, 4)
    assert (events[-1].data["bytes"], events[-1].data["documents"], events[-1].data["files"]) == (150, 15, 1)


def test_a_teller_leaves_no_note_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    teller = Teller(tmp_path / "x" / "a.progress")
    teller(1, 2, 3)
    assert (tmp_path / "x" / "a.progress").read_text() == "1 3"
    teller.close()
    assert list((tmp_path / "x").iterdir()) == []
