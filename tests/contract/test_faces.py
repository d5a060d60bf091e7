"""One suite, two transports: the client gives the same answers and the same exceptions in process and over HTTP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from pydantic import Field

from espalier.api.app import build_api
from espalier.core import operations
from espalier.core.errors import Conflict, GateFailed, InvalidInput, NotFound, PermissionDenied, Unauthenticated
from espalier.core.events import Event
from espalier.core.operations import operation
from espalier.core.ports import Delta
from espalier.core.types import Principal, Run, Spec, Usage
from espalier.sdk.client import Client, RunHandle
from espalier.services.context import Context, open_context
from espalier.services.worker import Worker
from espalier.store.workspace import init_workspace

_KEYS = {"ada": Principal(actor="ada", role="admin"), "uma": Principal(actor="uma", role="user")}


class CountTo(Spec):
    """How far to count."""

    to: int = Field(ge=0, description="the last number")
    fail_at: int = Field(-1, description="fail at this number")
    names: list[str] = Field(default_factory=list, description="words to carry")
    tags: dict[str, str] = Field(default_factory=dict, description="pairs to carry")


class Counted(Spec):
    """What was counted, and who asked."""

    total: int
    names: tuple[str, ...]
    tags: dict[str, str]
    actor: str


def count(context: Context, request: CountTo) -> Counted:
    """Count."""
    if request.to == request.fail_at:
        raise GateFailed("that far is too far", hint="count less")
    return Counted(total=sum(range(request.to + 1)), names=tuple(request.names), tags=request.tags, actor=context.actor)


def recite(context: Context, request: CountTo) -> Iterator[Delta]:
    """Count aloud."""
    for number in range(request.to):
        if number == request.fail_at:
            raise Conflict("lost count", hint="start again")
        yield Delta(f"{number} ")
    yield Delta("", "stop", Usage(prompt_tokens=1, completion_tokens=request.to))


def labour(context: Context, request: CountTo) -> Run:
    """Count as a job."""
    for number in range(request.to):
        if number == request.fail_at:
            raise GateFailed("the job is too long", hint="count less")
        context.emit(Event("count", {"number": number}))
    return context.store.runs.update(context.run_id, metrics={"total": float(request.to)})


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    """Four operations of our own beside the real ones, one of each shape."""
    operations.load_operations()
    before = dict(operations._TABLE)
    operation("count.answer", "GET /v1/count/{to}", positional=("to",))(count)
    operation("count.post", "POST /v1/count", role="admin")(count)
    operation("count.stream", "POST /v1/count/stream", shape="stream")(recite)
    operation("count.job", "POST /v1/count/job", shape="job")(labour)
    yield
    operations._TABLE.clear()
    operations._TABLE.update(before)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    init_workspace(tmp_path)
    opened = open_context(tmp_path, actor="ada")
    yield opened
    opened.close()


@pytest.fixture
def url(context: Context) -> Iterator[str]:
    def authenticate(key: str | None) -> Principal:
        if key not in _KEYS:
            raise Unauthenticated("no such key", hint="ask for one")
        return _KEYS[key]

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(build_api(lambda: context, authenticate), log_level="critical", ws="none")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(params=["in process", "over HTTP"])
def client(request: pytest.FixtureRequest, context: Context, tmp_path: Path) -> Iterator[Client]:
    if request.param == "in process":
        with Client(tmp_path, actor="ada") as made:
            yield made
        return
    worker = Worker(context, poll_s=0.05)
    worker.start()
    with Client(url=request.getfixturevalue("url"), key="ada") as made:
        yield made
    worker.stop()


def test_an_answer_comes_back_as_its_type(client: Client) -> None:
    answer = client.call("count.answer", to=4, names=["a b", "c&d"], tags={"x": "1/2"})
    assert answer == Counted(total=10, names=("a b", "c&d"), tags={"x": "1/2"}, actor="ada")


def test_a_noun_and_a_verb_are_attributes(client: Client) -> None:
    assert client.count.post(to=3).total == 6
    assert "post" in dir(client.count) and "count" in dir(client)
    with pytest.raises(AttributeError, match="did you mean `count`"):
        _ = client.cuont


def test_a_job_asked_for_in_process_is_kept_from_other_workers_until_it_is_done_here(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server on the same workspace has another environment: the key a recipe names is not in it."""
    monkeypatch.setattr("espalier.sdk.local._HEAD_START_S", 3600)
    with Client(tmp_path, actor="ada") as client:
        handle = client.call("count.job", to=3)
        assert context.store.jobs.lease("a server's worker") is None
        assert handle.wait().status == "succeeded"
        detached = client.call("count.job", to=3)
        assert detached.detach().status == "queued"
        lease = context.store.jobs.lease("a server's worker")
        assert lease is not None and lease.job.payload["run"] == detached.id


def test_an_error_comes_back_as_the_class_it_was_raised_as(client: Client) -> None:
    with pytest.raises(GateFailed, match="too far") as caught:
        client.call("count.post", to=3, fail_at=3)
    assert caught.value.hint == "count less"


def test_a_wrong_field_is_refused_with_the_right_one(client: Client) -> None:
    with pytest.raises(InvalidInput, match="tw: unknown key") as caught:
        client.call("count.post", to=1, tw=2)
    assert "to" in caught.value.hint
    with pytest.raises(InvalidInput, match="to: "):
        client.call("count.post", to=-1)


def test_an_unknown_operation_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound, match=r"count\.pots"):
        client.call("count.pots", to=1)


def test_a_stream_is_an_iterator_of_its_items(client: Client) -> None:
    items = list(client.call("count.stream", to=3))
    assert "".join(item.text for item in items) == "0 1 2 "
    assert items[-1].usage == Usage(prompt_tokens=1, completion_tokens=3)


def test_a_stream_that_fails_gives_what_it_had_and_then_the_error(client: Client) -> None:
    stream = client.call("count.stream", to=5, fail_at=2)
    assert [next(stream).text, next(stream).text] == ["0 ", "1 "]
    with pytest.raises(Conflict, match="lost count"):
        next(stream)


def test_a_stream_that_fails_at_once_raises_the_error(client: Client) -> None:
    with pytest.raises(Conflict, match="lost count"):
        next(iter(client.call("count.stream", to=5, fail_at=0)))


def test_a_job_is_waited_for_with_its_events(client: Client) -> None:
    handle = client.call("count.job", to=3)
    assert isinstance(handle, RunHandle)
    seen: list[Event] = []
    run = handle.wait(seen.append)
    assert (run.status, run.metrics, run.actor) == ("succeeded", {"total": 3.0}, "ada")
    assert [event.data["number"] for event in seen if event.kind == "count"] == [0, 1, 2]
    assert seen[-1].kind == "run.finished"
    assert [event.kind for event in handle.events()] == [event.kind for event in seen]
    assert client.call("jobs.show", id=handle.id).status == "succeeded"


def test_a_job_that_fails_raises_its_error_from_wait(client: Client) -> None:
    handle = client.call("count.job", to=3, fail_at=1)
    with pytest.raises(GateFailed, match="too long"):
        handle.wait()
    assert client.call("runs.show", id=handle.id).error["code"] == "gate_failed"


def test_a_queued_job_is_cancelled(context: Context, tmp_path: Path) -> None:
    with Client(tmp_path) as client:  # in process nobody works on it until it is waited for
        handle = client.call("count.job", to=3)
        handle.cancel()
        assert handle.wait().status == "cancelled"
        with pytest.raises(Conflict):
            handle.cancel()


def test_a_key_nobody_knows_is_refused(url: str) -> None:
    with pytest.raises(Unauthenticated):
        Client(url=url, key="eve").call("count.answer", to=1)


def test_a_role_too_low_is_refused_over_http(url: str) -> None:
    client = Client(url=url, key="uma")
    assert client.call("count.answer", to=1).actor == "uma"
    with pytest.raises(PermissionDenied, match="uma has the role user"):
        client.call("count.post", to=1)


@pytest.mark.parametrize(
    ("name", "field", "fields"),
    [
        ("datasets.inspect", "path", {}),
        ("datasets.check", "source", {"for": "bedrock:nova"}),
        ("datasets.drift", "thresholds", {"reference": "support", "current": "support"}),
        ("datasets.sample", "folder", {}),
        ("workspace.init", "folder", {}),
        ("datasets.build", "recipe", {}),
    ],
)
def test_a_path_over_http_stays_within_the_workspace(
    name: str, field: str, fields: dict[str, str], url: str, context: Context, tmp_path: Path
) -> None:
    (tmp_path / "out").symlink_to(tmp_path.parent)
    outside = tmp_path.parent / "elsewhere"
    worker = Worker(context, poll_s=0.05)  # a job's paths are looked at by who works on it
    worker.start()
    try:
        client = Client(url=url, key="ada")
        for path in ("../elsewhere", str(outside), "out/elsewhere", ".espalier/config.yaml"):
            with pytest.raises(PermissionDenied, match="outside the workspace"):
                answer = client.call(name, **{field: path}, **fields)
                if isinstance(answer, RunHandle):
                    answer.wait()
    finally:
        worker.stop()
    assert not outside.exists()


def test_a_path_within_the_workspace_is_read_over_http(client: Client, tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text('{"prompt": "q", "completion": "a"}\n')
    assert client.datasets.inspect(path="chats.jsonl").detection.format


def test_in_process_a_path_may_lead_anywhere(context: Context, tmp_path: Path) -> None:
    with Client(tmp_path) as client, pytest.raises(NotFound, match="elsewhere"):
        client.datasets.inspect(path="../elsewhere")


def test_only_an_admin_may_name_another_actor(url: str) -> None:
    assert Client(url=url, key="ada", actor="bo").call("count.answer", to=1).actor == "bo"
    with pytest.raises(PermissionDenied, match="uma may not act as ada"):
        Client(url=url, key="uma", actor="ada").call("count.answer", to=1)


def test_a_server_that_is_not_there_says_what_to_start() -> None:
    with socket.socket() as deaf, pytest.raises(NotFound, match="no answer") as caught:
        deaf.bind(("127.0.0.1", 0))  # held, so that nobody else answers there, and never listened at
        Client(url=f"http://127.0.0.1:{deaf.getsockname()[1]}", key="ada").call("count.answer", to=1)
    assert "espalier serve" in caught.value.hint
