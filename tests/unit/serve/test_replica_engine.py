"""An engine of replicas as far as it goes without a process."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from espalier.core.config import EngineConfig, ServeConfig
from espalier.core.errors import EspalierError, Unavailable
from espalier.core.ports import ChatRequest
from espalier.core.types import Message
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.replicas.crew import Crew
from espalier.serve.replicas.engine import ReplicaEngine


def test_who_waits_for_a_replica_is_told_when_the_engine_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    async def start_none(crew: Crew, replica: Any) -> None:
        """A replica that never gets ready."""

    async def wait_long(crew: Crew) -> Any:
        asked.set()
        await asyncio.sleep(120)

    monkeypatch.setattr(Crew, "_prepare", start_none)
    monkeypatch.setattr(Crew, "_wait_for_one", wait_long)
    engine = ReplicaEngine(
        EnginePlan("path:x", "path:x", ServeConfig(), EngineConfig.model_validate({"kind": "replicas"}), tmp_path)
    ).start()
    said: list[Exception] = []

    def count() -> None:
        try:
            engine.count_prompt_tokens(ChatRequest("r", "", "", [Message("user", "?")]))
        except EspalierError as error:
            said.append(error)

    asking = threading.Thread(target=count, daemon=True)
    asking.start()
    assert asked.wait(20)
    engine.stop()
    asking.join(20)
    assert [type(error) for error in said] == [Unavailable]
    assert not engine.answering


def test_who_asks_while_the_engine_stops_is_told_and_waits_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start_none(crew: Crew, replica: Any) -> None:
        """A replica that never gets ready, so that whatever is asked waits."""

    monkeypatch.setattr(Crew, "_prepare", start_none)
    said: list[str] = []

    async def ask(engine: ReplicaEngine) -> None:
        request = ChatRequest("r", "", "", [Message("user", "?")])
        try:
            said.extend([delta.finish_reason or "" async for delta in engine.stream(request)])
        except Unavailable:
            said.append("refused")

    def ask_until_refused(engine: ReplicaEngine) -> None:
        while "refused" not in said[-1:]:
            asyncio.run(ask(engine))

    plan = EnginePlan("path:x", "path:x", ServeConfig(), EngineConfig.model_validate({"kind": "replicas"}), tmp_path)
    for _ in range(10):
        said.clear()
        engine = ReplicaEngine(plan).start()
        askers = [threading.Thread(target=ask_until_refused, args=(engine,), daemon=True) for _ in range(4)]
        for asker in askers:
            asker.start()
        engine.stop()
        for asker in askers:
            asker.join(60)
        assert not any(asker.is_alive() for asker in askers)
        assert set(said) <= {"refused", "cancelled"}
