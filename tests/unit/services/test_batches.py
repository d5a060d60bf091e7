"""The operations on batches: whose they are, what the network may name, and what cannot be handed over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from espalier.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied, Unavailable
from espalier.core.events import Event
from espalier.gateway.batch.records import Batches
from espalier.gateway.batch.routes import encode
from espalier.gateway.batch.runner import raise_sign
from espalier.gateway.keys import KeyRing
from espalier.services import batches
from espalier.services.batches import CreateBatch, FetchResults, ListBatches, NameBatch, RunBatch
from espalier.services.context import Context, open_context
from espalier.store.workspace import init_workspace

LINE = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    init_workspace(tmp_path)
    (tmp_path / "asked.jsonl").write_text(json.dumps(LINE) + "\n", "utf-8")
    opened = open_context(tmp_path, actor="ada")
    yield opened
    opened.close()


def of_key(context: Context, name: str) -> Context:
    """The context of who asks over the network with a new key."""
    key = KeyRing(context.store).create(name).key
    return context.acting_as(key.principal).confine()


def test_a_key_sees_its_own_batches_and_the_owner_all(context: Context) -> None:
    one, other = of_key(context, "one"), of_key(context, "other")
    made = batches.create(one, CreateBatch(file="asked.jsonl", model="m"))
    assert (made.status, made.name, made.model) == ("validating", "asked.jsonl", "m")
    assert [view.id for view in batches.list_all(one, ListBatches())] == [made.id]
    assert [view.id for view in batches.list_all(context, ListBatches())] == [made.id]
    assert batches.list_all(other, ListBatches()) == []
    for call in (batches.show, batches.cancel):
        with pytest.raises(NotFound):
            call(other, NameBatch(id=made.id))
    assert batches.cancel(one, NameBatch(id=made.id)).status == "cancelling"


def test_a_batch_is_on_the_account_of_the_key_that_asks_for_it(context: Context) -> None:
    asking = of_key(context, "one")
    made = batches.create(asking, CreateBatch(file="asked.jsonl"))
    assert Batches(context.store).get(made.id).batch.owner == asking.principal.key
    owners = batches.create(context, CreateBatch(file="asked.jsonl"))
    assert Batches(context.store).get(owners.id).batch.key is None


def test_over_the_network_nothing_outside_the_workspace_is_read_or_written(context: Context, tmp_path: Path) -> None:
    asking = of_key(context, "one")
    with pytest.raises(PermissionDenied):
        batches.create(asking, CreateBatch(file="/etc/hostname"))
    with pytest.raises(PermissionDenied):
        batches.create(asking, CreateBatch(file="asked.jsonl", model="m", shape="invoke", destination="../out"))
    with pytest.raises(PermissionDenied):  # it would be written with the server's own credentials
        batches.create(asking, CreateBatch(file="asked.jsonl", model="m", shape="invoke", destination="s3://b/out"))


def test_what_makes_no_batch_is_refused_at_once(context: Context) -> None:
    with pytest.raises(NotFound, match=r"absent\.jsonl") as caught:
        batches.create(context, CreateBatch(file="absent.jsonl"))
    assert '"custom_id": "1"' in caught.value.hint
    with pytest.raises(InvalidInput, match="model"):
        batches.create(context, CreateBatch(file="asked.jsonl", shape="converse"))
    with pytest.raises(InvalidInput, match="destination"):
        batches.create(context, CreateBatch(file="asked.jsonl", destination="out"))
    with pytest.raises(InvalidInput, match="window"):
        batches.create(context, CreateBatch(file="asked.jsonl", window="soon"))


def test_results_are_handed_over_when_they_are_whole(context: Context) -> None:
    made = batches.create(context, CreateBatch(file="asked.jsonl"))
    with pytest.raises(Conflict):
        batches.results(context, FetchResults(id=made.id, output="out.jsonl"))


@pytest.mark.parametrize(
    ("file", "output"),
    [("asked.jsonl", "asked.jsonl"), ("asked.jsonl", "out/../asked.jsonl"), ("a.errors.jsonl", "a.jsonl")],
)
def test_answers_never_replace_the_questions(context: Context, tmp_path: Path, file: str, output: str) -> None:
    (tmp_path / file).write_text(json.dumps(LINE) + "\n", "utf-8")
    with pytest.raises(InvalidInput, match="would replace the questions"):
        next(iter(batches.run(context, RunBatch(file=file, output=output))))
    assert json.loads((tmp_path / file).read_text("utf-8")) == LINE
    assert batches.list_all(context, ListBatches()) == []


def test_a_folder_for_the_answers_is_refused_before_anything_is_asked(context: Context, tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    with pytest.raises(InvalidInput, match="is a folder") as caught:
        next(iter(batches.run(context, RunBatch(file="asked.jsonl", output="answers"))))
    assert str(tmp_path / "answers" / "answers.jsonl") in caught.value.hint
    assert batches.list_all(context, ListBatches()) == []
    made = batches.create(context, CreateBatch(file="asked.jsonl"))
    with pytest.raises(InvalidInput, match="is a folder"):
        batches.results(context, FetchResults(id=made.id, output="answers"))


def test_no_failures_of_an_earlier_run_stand_beside_the_answers(context: Context, tmp_path: Path) -> None:
    said = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, "model": "builtin:seedling"}
    wrong, right = json.dumps(LINE | {"url": "/wrong", "body": said}), json.dumps(LINE | {"body": said})
    asked, errors = tmp_path / "asked.jsonl", tmp_path / "out.errors.jsonl"
    asked.write_text(wrong + "\n", "utf-8")
    with pytest.raises(InvalidInput, match="url"):
        list(batches.run(context, RunBatch(file="asked.jsonl", output="out.jsonl")))
    assert "invalid_url" in errors.read_text("utf-8")
    asked.write_text(right + "\n", "utf-8")
    finished = list(batches.run(context, RunBatch(file="asked.jsonl", output="out.jsonl")))[-1]
    assert (finished.data["completed"], finished.data["errors"]) == (1, "")
    assert not errors.exists()


def test_where_a_server_answers_a_run_says_how_it_is_ended_and_ends_badly_when_it_was(
    context: Context, tmp_path: Path
) -> None:
    folder = Batches(context.store).folder
    sign = raise_sign(folder)
    try:
        running = iter(batches.run(context, RunBatch(file="asked.jsonl", model="builtin:seedling")))
        said = [next(running).data["message"], next(running).data["message"]][1]
        (made,) = batches.list_all(context, ListBatches())
        assert f"`espalier batch cancel {made.id}`" in said
    finally:
        os.close(sign)
    batches.cancel(context, NameBatch(id=made.id))
    events: list[Event] = []
    with pytest.raises(Conflict, match="was cancelled with 1 of 1 lines unasked") as caught:
        for event in running:
            events.append(event)
    finished = events[-1].data
    assert (finished["status"], finished["completed"], finished["failed"], finished["total"]) == ("cancelled", 0, 0, 1)
    assert finished["errors"] in caught.value.hint
    assert "batch_cancelled" in Path(finished["errors"]).read_text("utf-8")


def test_over_the_network_a_run_wants_a_server_that_takes_batches(context: Context) -> None:
    events: list[Event] = []
    with pytest.raises(Unavailable):
        for event in batches.run(of_key(context, "one"), RunBatch(file="asked.jsonl")):
            events.append(event)
    assert [event.kind for event in events] == ["log", "batch.progress"]


def test_a_run_refuses_a_model_nobody_knows_before_anything_is_queued(context: Context) -> None:
    with pytest.raises(NotFound, match="builtin:seedlin'") as caught:
        next(iter(batches.run(context, RunBatch(file="asked.jsonl", model="builtin:seedlin"))))
    assert "`builtin:seedling`" in caught.value.hint
    assert batches.list_all(context, ListBatches()) == []


def test_where_a_server_takes_batches_a_run_leaves_it_to_say_which_models_there_are(context: Context) -> None:
    sign = raise_sign(Batches(context.store).folder)
    try:
        running = iter(batches.run(context, RunBatch(file="asked.jsonl", model="a-name-of-the-servers")))
        assert next(running).kind == "log"
    finally:
        os.close(sign)
    assert [view.model for view in batches.list_all(context, ListBatches())] == ["a-name-of-the-servers"]


@pytest.mark.parametrize("shape", ["openai", "converse"])
def test_a_run_without_a_single_answer_ends_badly_and_says_why(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: Literal["openai", "converse"]
) -> None:
    monkeypatch.setattr(batches, "_check_model", lambda *_: None)  # as where the model goes after it was queued
    said: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
    record = {"recordId": "a", "modelInput": {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}}
    asked = LINE | {"body": said} if shape == "openai" else record
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked) + "\n", "utf-8")
    events: list[Event] = []
    with pytest.raises(InvalidInput, match="none of 1 lines was answered: no model 'builtin:seedlin'") as caught:
        for event in batches.run(context, RunBatch(file="asked.jsonl", model="builtin:seedlin", shape=shape)):
            events.append(event)
    finished = events[-1]
    assert (finished.kind, finished.data["status"], finished.data["failed"]) == ("batch.finished", "completed", 1)
    named = finished.data["errors"] or finished.data["output"]
    assert named in caught.value.hint and "builtin:seedlin" in Path(named).read_text("utf-8")
    (view,) = batches.list_all(context, ListBatches())
    assert (view.status, view.completed, view.failed) == ("completed", 0, 1)
    assert "none of 1 lines" in view.fault
    told = encode(Batches(context.store).get(view.id))
    assert (told["status"], told["errors"]) == ("completed", None)  # as OpenAI's own would be
    assert told["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
