"""What is vLLM's own among engines: adapters by digest, ids of our template, refusals in our words, a child of ours."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from tests.unit.serve.engines.conftest import BASE, Connect

from espalier.core.errors import (
    DigestMismatch,
    EspalierError,
    InvalidInput,
    MissingExtra,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnsupportedModel,
)
from espalier.core.ports import ChatRequest, Delta, Lane
from espalier.core.types import Message, SamplingSpec
from espalier.nn.lora import LoraSpec
from espalier.serve.engine import Engine
from espalier.serve.engines.line import Line, Reply
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.vllm import VllmEngine
from espalier.testing.contracts.provider import collect, open_stream, text_of
from espalier.testing.tiny import make_tiny_adapter, make_tiny_base
from espalier.testing.vllm.model import Model
from espalier.testing.vllm.server import VllmSettings, serve_vllm

DOUBLE = [sys.executable, "-m", "espalier.testing.vllm", "serve"]


def ask(
    engine: VllmEngine | Engine,
    adapter: str = "",
    text: str = "hello",
    lane: Lane = "interactive",
    reservation: str = "",
    **sampling: Any,
) -> list[Delta]:
    spec = SamplingSpec(**{"max_tokens": 8, **sampling})
    request = ChatRequest("req_1", "", adapter, [Message("user", text)], spec, lane=lane, reservation=reservation)
    return asyncio.run(asyncio.wait_for(collect(engine, request), 60))


def test_it_answers_as_the_embedded_engine_does_adapter_by_adapter(
    connect: Connect, load_tiny: Callable[[], Any], adapter_folders: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    folders = adapter_folders | {
        "patterns": make_tiny_adapter(
            tmp_path / "patterns", tiny_folder, LoraSpec(rank=8, alpha=4, ranks={"q_proj": 2}, alphas={"up_proj": 9}), 5
        )
    }
    engine, _ = connect()
    with_patterns_ignored, _ = connect()
    embedded = Engine(load_tiny()).start()
    try:
        for name, folder in folders.items():
            engine.load_adapter(name, folder)
            embedded.load_adapter(name, folder)
        for name in ["", *folders]:
            assert text_of(ask(engine, name)) == text_of(ask(embedded, name)), name
        # The control: the double reads patterns as an older vLLM does, so the folder as it stands answers otherwise.
        server = with_patterns_ignored._server
        assert server is not None
        reply = server.line.call(
            "POST", "/v1/load_lora_adapter", {"lora_name": "raw", "lora_path": str(folders["patterns"])}
        )
        assert reply.status == 200
        with_patterns_ignored._roster.add("raw", "raw")
        assert text_of(ask(with_patterns_ignored, "raw")) != text_of(ask(embedded, "patterns"))
    finally:
        embedded.stop()


def test_the_prompt_goes_out_as_the_ids_of_our_template(connect: Connect, load_tiny: Callable[[], Any]) -> None:
    engine, double = connect()
    used = ask(engine, text="two words")[-1].usage
    prompt = load_tiny().tokenizer.encode_prompt([Message("user", "two words")])
    assert double.requests[-1].prompt == prompt
    assert used is not None and used.prompt_tokens == len(prompt)


def test_reserved_comes_before_interactive_before_batch_where_the_server_has_priorities(connect: Connect) -> None:
    engine, double = connect(priorities=True)
    ask(engine, lane="batch")
    ask(engine)
    ask(engine, reservation="gold")
    assert [request.priority for request in double.requests] == [2, 1, 0]
    plain, double = connect(settings={"priorities": False})
    ask(plain, lane="batch")
    assert double.requests[-1].priority == 0


def test_an_answer_nobody_reads_any_more_is_aborted_at_the_server(connect: Connect) -> None:
    engine, double = connect()
    double.gate.clear()  # the answer comes to no end, however late its reader leaves

    async def leave() -> None:
        request = ChatRequest("req_1", BASE, "", [Message("user", "hi")], SamplingSpec(max_tokens=200, ignore_end=True))
        async with aclosing(open_stream(engine, request)) as deltas:
            await anext(deltas)
        for _ in range(6000):
            if double.aborted and not double.under_way.total():
                return
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert (double.aborted, double.under_way.total()) == (1, 0)


@pytest.mark.parametrize(
    ("status", "kind", "wait_s"),
    [(429, RateLimited, 7.0), (503, Unavailable, 7.0), (500, Unavailable, 7.0), (400, InvalidInput, 0.0)],
)
def test_a_refusal_comes_in_our_words_with_the_time_to_wait(
    connect: Connect, status: int, kind: type[EspalierError], wait_s: float
) -> None:
    engine, double = connect()
    double.trouble.append((status, {"Retry-After": "7"}))
    with pytest.raises(kind, match="scripted trouble") as caught:
        ask(engine)
    assert caught.value.retry_after_s == wait_s
    assert ask(engine)[-1].finish_reason  # and the next one is answered


def test_a_wrong_key_is_our_fault_and_not_the_askers(
    connect: Connect, plan: Callable[..., EnginePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOD", "good")
    monkeypatch.setenv("BAD", "bad-secret")
    engine, double = connect(settings={"key": "good"}, key_env="GOOD")
    assert ask(engine)[-1].finish_reason
    with pytest.raises(Unavailable) as caught:
        VllmEngine(plan(double.url, key_env="BAD")).start()
    assert not isinstance(caught.value, Unauthenticated)
    assert "bad-secret" not in str(caught.value)
    with pytest.raises(InvalidInput, match="EMPTY"):
        VllmEngine(plan(double.url, key_env="EMPTY"))


def test_a_server_with_another_tokenizer_is_refused(
    plan: Callable[..., EnginePlan], vllm_model: Model, tmp_path: Path
) -> None:
    folder = make_tiny_base(tmp_path / "other")
    fields = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    fields["model"]["merges"] = fields["model"]["merges"][:-8]
    (folder / "tokenizer.json").write_text(json.dumps(fields), "utf-8")
    with serve_vllm(VllmSettings(folder, "served")) as double, pytest.raises(DigestMismatch, match="tokenizer"):
        VllmEngine(plan(double.url)).start()


def test_a_model_the_server_lacks_is_named_with_those_it_has(connect: Connect) -> None:
    with pytest.raises(NotFound, match="no another") as caught:
        connect(model="another")
    assert "served" in caught.value.hint


def test_an_adapter_that_stands_there_from_before_is_taken_and_one_of_another_folder_is_not(
    connect: Connect, plan: Callable[..., EnginePlan], adapter_folders: dict[str, Path]
) -> None:
    first, double = connect()
    first.load_adapter("d" * 64, adapter_folders["a"])
    second = VllmEngine(plan(double.url)).start()
    try:
        second.load_adapter("d" * 64, adapter_folders["a"])
        assert text_of(ask(second, "d" * 64)) == text_of(ask(first, "d" * 64))
        second.unload_adapter("d" * 64)
        second.load_adapter("d" * 64, adapter_folders["a"])
        third = VllmEngine(plan(double.url)).start()
        with pytest.raises(InvalidInput, match="already been loaded"):
            third.load_adapter("d" * 64, adapter_folders["b"])
        third.stop()
    finally:
        second.stop()


def test_an_adapter_that_a_server_lost_when_it_was_started_anew_is_loaded_again(
    connect: Connect, adapter_folders: dict[str, Path]
) -> None:
    engine, double = connect()
    engine.load_adapter("a" * 64, adapter_folders["a"])
    before = text_of(ask(engine, "a" * 64))
    double.loras.clear()
    assert text_of(ask(engine, "a" * 64)) == before
    assert list(double.loras) == ["a" * 64]


def test_folders_are_named_as_the_server_sees_them(
    connect: Connect, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    theirs = tmp_path / "mounted"
    theirs.symlink_to(adapter_folders["a"].parent, target_is_directory=True)
    engine, double = connect(folders={str(adapter_folders["a"].parent): str(theirs)})
    engine.load_adapter("a" * 64, adapter_folders["a"])
    assert double.loras["a" * 64].folder == str(theirs / adapter_folders["a"].name)


def test_what_vllm_could_not_serve_rightly_is_refused(connect: Connect, tiny_folder: Path, tmp_path: Path) -> None:
    engine, double = connect(settings={"max_lora_rank": 8})
    dora = make_tiny_adapter(tmp_path / "dora", tiny_folder, LoraSpec(rank=2, dora=True))
    with pytest.raises(UnsupportedModel, match="DoRA"):
        engine.load_adapter("a" * 64, dora)
    large = make_tiny_adapter(tmp_path / "large", tiny_folder, LoraSpec(rank=16))
    with pytest.raises(InvalidInput, match="rank 16"):
        engine.load_adapter("b" * 64, large)
    assert double.loras == {}


def test_a_server_that_loads_nothing_at_run_time_is_told_how_to(
    connect: Connect, adapter_folders: dict[str, Path]
) -> None:
    engine, _ = connect(settings={"runtime_loras": False})
    with pytest.raises(InvalidInput) as caught:
        engine.load_adapter("a" * 64, adapter_folders["a"])
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in caught.value.hint


def test_an_option_that_is_none_is_refused_with_the_nearest_one(plan: Callable[..., EnginePlan]) -> None:
    with pytest.raises(InvalidInput, match="max_lora") as caught:
        VllmEngine(plan("http://127.0.0.1:1", max_lora=3))
    assert "max_loras" in caught.value.hint


def test_nobody_there_is_unavailable(plan: Callable[..., EnginePlan]) -> None:
    with pytest.raises(Unavailable, match="not ready"):
        VllmEngine(plan("http://127.0.0.1:1")).start()


@pytest.mark.parametrize("page", [b"<html>a proxy's page</html>", b"[]", b'{"data": [{}]}', b'{"data": 3}'])
def test_what_answers_otherwise_than_vllm_is_told_as_such_and_hung_up_on(
    plan: Callable[..., EnginePlan], monkeypatch: pytest.MonkeyPatch, page: bytes
) -> None:
    monkeypatch.setattr(Line, "call", lambda own, *asked, **options: Reply(200, page))
    engine = VllmEngine(plan("http://127.0.0.1:1"))
    with pytest.raises(InvalidInput, match="as vLLM does") as caught:
        engine.start()
    assert "url" in caught.value.hint
    assert not engine.answering


@pytest.mark.slow  # a process that imports torch
def test_a_child_has_a_key_nobody_else_has_and_is_started_again_where_it_died(
    plan: Callable[..., EnginePlan],
    adapter_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ESPALIER_STORE__URL", "postgresql://a:secret@b/c")
    for name in ("AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "HF_TOKEN", "PGPASSWORD", "MAIL_SECRET"):
        monkeypatch.setenv(name, "secret")
    program = tmp_path / "once.py"
    program.write_text(f"import os, sys\nos.execv(sys.executable, {DOUBLE} + sys.argv[1:])\n", "utf-8")
    engine = VllmEngine(plan(command=[sys.executable, str(program)], max_lora_rank=16)).start()
    try:
        engine.load_adapter("a" * 64, adapter_folders["a"])
        assert ask(engine, "a" * 64)[-1].adapter == "a" * 64
        assert engine._server is not None
        process, line = engine._server.process, engine._server.line
        assert process is not None and process._child is not None
        child = psutil.Process(process._child.pid)
        key = child.environ()["VLLM_API_KEY"]
        assert key not in " ".join(child.cmdline()) and len(key) >= 32
        assert key not in process.log.read_text("utf-8")
        assert child.environ()["VLLM_NO_USAGE_STATS"] == "1"
        assert "secret" not in "".join(child.environ().values())
        assert asyncio.run(_status_without_a_key(line.url)) == 401
        with pytest.raises(Unavailable):
            asyncio.run(_kill_in_the_middle(engine, child.pid))
        process._child.wait()
        with pytest.raises(Unavailable, match="not running"):
            ask(engine)
        program.write_text("raise SystemExit('the second time')", "utf-8")
        with pytest.raises(Unavailable, match="the second time"):
            engine.start()
        assert engine.list_adapters() == []
    finally:
        engine.stop()


def test_a_child_that_ends_at_its_start_is_quoted(plan: Callable[..., EnginePlan]) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no GPU here')"]
    with pytest.raises(Unavailable, match="no GPU here"):
        VllmEngine(plan(command=command)).start()


def test_no_vllm_here_is_a_missing_extra(plan: Callable[..., EnginePlan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtra) as caught:
        VllmEngine(plan()).start()
    assert "espalier[vllm]" in caught.value.hint


def test_a_flag_vllm_does_not_document_ends_the_double_as_it_would_end_vllm(plan: Callable[..., EnginePlan]) -> None:
    with pytest.raises(Unavailable, match="unrecognized arguments"):
        VllmEngine(plan(command=DOUBLE, arguments=["--no-such-flag"])).start()


async def _status_without_a_key(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/models") as reply:
        return reply.status


async def _kill_in_the_middle(engine: VllmEngine, pid: int) -> None:
    # So many answers that it is at work on them for long after the first piece.
    sampling = SamplingSpec(max_tokens=300, ignore_end=True, n=100, temperature=1.0)
    request = ChatRequest("req_1", BASE, "", [Message("user", "hi")], sampling)
    async with aclosing(open_stream(engine, request)) as deltas:
        await anext(deltas)
        os.kill(pid, signal.SIGKILL)
        async for _ in deltas:
            pass
