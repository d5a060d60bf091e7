"""The worker: work is finished once, stops when it is told to, and a failure is on its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import Field

from espalier.core import operations
from espalier.core.errors import GateFailed, Interrupted
from espalier.core.events import Event
from espalier.core.operations import find_operation, operation
from espalier.core.types import Run, Spec
from espalier.services.context import Context, open_context
from espalier.services.queue import job_id, run_id, submit_job
from espalier.services.worker import Worker, settle_orphans
from espalier.store.jobs import Job, Lease
from espalier.store.workspace import init_workspace


class Work(Spec):
    """What to do."""

    steps: int = Field(3, description="events to emit")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    init_workspace(tmp_path)
    opened = open_context(tmp_path, actor="ada")
    yield opened
    opened.close()


@pytest.fixture
def declare() -> Iterator[Callable[[Callable[[Context, Work], Run]], None]]:
    """Makes a function the job operation `test.work` for one test."""
    operations.load_operations()
    before = dict(operations._TABLE)

    def make(function: Callable[[Context, Work], Run]) -> None:
        def call(context: Context, request: Work) -> Run:
            """Work."""
            return function(context, request)

        operation("test.work", "POST /v1/test/work", shape="job")(call)

    yield make
    operations._TABLE.clear()
    operations._TABLE.update(before)


def submit(context: Context, steps: int = 3) -> Run:
    return submit_job(context, find_operation("test.work"), Work(steps=steps))


def end(context: Context) -> Run:
    return context.store.runs.get(context.run_id)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")


Declare = Callable[[Callable[[Context, Work], Run]], None]


def test_a_job_and_its_run_name_each_other() -> None:
    assert job_id("run_abc") == "job_abc" == job_id("job_abc")
    assert run_id("job_abc") == "run_abc" == run_id("run_abc")


def test_work_runs_as_who_asked_and_ends_succeeded(context: Context, declare: Declare) -> None:
    def work(inside: Context, request: Work) -> Run:
        for number in range(request.steps):
            inside.emit(Event("tick", {"number": number}))
        return inside.store.runs.update(inside.run_id, metrics={"steps": request.steps}, name=inside.actor)

    declare(work)
    run = submit(context)
    seen: list[Event] = []
    done = Worker(context).work_on(run.id, seen.append)
    assert done is not None
    assert (done.status, done.metrics, done.name) == ("succeeded", {"steps": 3.0}, "ada")
    assert [event.kind for event in seen] == ["run.started", "tick", "tick", "tick", "run.finished"]
    assert list(context.store.runs.events(run.id)) == seen
    assert context.store.jobs.get(job_id(run.id)).status == "succeeded"


def test_a_failure_is_on_the_run_with_its_class(context: Context, declare: Declare) -> None:
    def work(inside: Context, request: Work) -> Run:
        raise GateFailed("not good enough", hint="more data")

    declare(work)
    done = Worker(context).work_on(submit(context).id, lambda event: None)
    assert done is not None and done.error is not None
    assert (done.status, done.error["code"], done.error["hint"]) == ("failed", "gate_failed", "more data")


def test_a_bug_in_the_work_fails_the_job_and_keeps_its_traceback(context: Context, declare: Declare) -> None:
    def work(inside: Context, request: Work) -> Run:
        raise ZeroDivisionError("oh")

    declare(work)
    run = submit(context)
    done = Worker(context).work_on(run.id, lambda event: None)
    assert done is not None and done.error is not None
    assert "ZeroDivisionError: oh" in done.error["message"]
    assert "ZeroDivisionError" in (context.store.runs.folder(run.id) / "log.txt").read_text()


def test_a_job_is_done_by_one_worker_only(context: Context, declare: Declare) -> None:
    declare(lambda inside, request: end(inside))
    run = submit(context)
    assert Worker(context).work_on(run.id, lambda event: None) is not None
    assert Worker(context).work_on(run.id, lambda event: None) is None


def test_ctrl_c_ends_the_run_as_cancelled_and_says_how_to_go_on(context: Context, declare: Declare) -> None:
    def work(inside: Context, request: Work) -> Run:
        raise KeyboardInterrupt

    declare(work)
    run = submit(context)
    with pytest.raises(Interrupted) as caught:
        Worker(context).work_on(run.id, lambda event: None)
    assert "same command again" in caught.value.hint
    assert context.store.runs.get(run.id).status == "cancelled"


def test_a_cancelled_job_stops_at_its_next_event(
    context: Context, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier.services.worker._BEAT_S", 0.01)
    began = threading.Event()

    def work(inside: Context, request: Work) -> Run:
        began.set()
        wait_until(inside.stopped)
        inside.emit(Event("tick"))
        raise AssertionError("the event should have stopped it")

    declare(work)
    run = submit(context)
    worker = Worker(context, poll_s=0.01)
    worker.start()
    assert began.wait(60)
    context.store.jobs.cancel(job_id(run.id))
    wait_until(lambda: context.store.runs.get(run.id).status == "cancelled")
    assert context.store.jobs.get(job_id(run.id)).status == "cancelled"
    worker.stop()


def test_a_worker_that_stops_gives_its_job_back_and_another_finishes_it(context: Context, declare: Declare) -> None:
    began, attempts = threading.Event(), []

    def work(inside: Context, request: Work) -> Run:
        attempts.append(1)
        if len(attempts) == 1:
            began.set()
            wait_until(inside.stopped)
        inside.emit(Event("tick"))
        return end(inside)

    declare(work)
    run = submit(context)
    first = Worker(context, poll_s=0.01)
    first.start()
    assert began.wait(60)
    first.stop()
    assert context.store.runs.get(run.id).status == "queued"
    second = Worker(context, poll_s=0.01)
    second.start()
    wait_until(lambda: context.store.runs.get(run.id).status == "succeeded")
    second.stop()
    assert len(attempts) == 2
    assert context.store.jobs.get(job_id(run.id)).attempts == 1  # a stop on purpose uses no attempt up


def test_a_job_given_back_can_be_taken_only_once_its_run_is_queued_too(
    context: Context, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, release, seen = threading.Event(), context.store.jobs.release, list[str]()

    def look_from_elsewhere(lease: Lease) -> Job:
        given_back = release(lease)
        other = threading.Thread(target=lambda: seen.append(context.store.jobs.get(lease.job.id).status))
        other.start()
        other.join()
        return given_back

    def work(inside: Context, request: Work) -> Run:
        began.set()
        wait_until(inside.stopped)
        inside.emit(Event("tick"))
        return end(inside)

    declare(work)
    run = submit(context)
    monkeypatch.setattr(context.store.jobs, "release", look_from_elsewhere)
    worker = Worker(context, poll_s=0.01)
    worker.start()
    assert began.wait(60)
    worker.stop()
    assert seen == ["running"]
    assert (context.store.jobs.get(job_id(run.id)).status, context.store.runs.get(run.id).status) == ("queued",) * 2


def test_a_worker_that_lost_its_lease_changes_nothing(
    context: Context, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier.services.worker._BEAT_S", 3600.0)  # it is not prolonged meanwhile

    def work(inside: Context, request: Work) -> Run:
        inside.store.jobs._clock = lambda: time.time_ns() // 1_000_000 + 7_200_000  # the lease runs out ...
        other = inside.store.jobs.lease("other", 30)
        assert other is not None  # ... and another worker takes the job
        inside.store.jobs.complete(other)
        inside.store.runs.update(inside.run_id, status="succeeded", name="by the other")
        return end(inside)

    declare(work)
    run = submit(context)
    lease = context.store.jobs.lease("slow", 3600)
    assert lease is not None
    Worker(context)._work(lease, lambda event: None)
    ended = context.store.runs.get(run.id)
    assert (ended.status, ended.name) == ("succeeded", "by the other")
    assert [event.kind for event in context.store.runs.events(run.id)] == ["run.started"]


_KILLED = """
    import sys, time
    from pathlib import Path
    from pydantic import Field
    from espalier.core.operations import operation
    from espalier.core.types import Run, Spec
    from espalier.services import worker
    from espalier.services.context import open_context

    class Work(Spec):
        steps: int = Field(3)

    @operation("test.work", "POST /v1/test/work", shape="job")
    def work(context, request: Work) -> Run:
        "Work."
        print("working", flush=True)
        time.sleep(60)

    context = open_context(Path(sys.argv[1]))
    if sys.argv[2] == "foreground":
        worker.Worker(context).work_on(sys.argv[3], lambda event: None)
    else:
        worker.Worker(context, ttl_s=0.2).run()
"""


@pytest.mark.parametrize(("kind", "ends"), [("foreground", "failed"), ("background", "succeeded")])
def test_kill_9_loses_no_job(context: Context, declare: Declare, tmp_path: Path, kind: str, ends: str) -> None:
    """A background job is done again by the next worker; one a person waited for is theirs to start again."""
    declare(lambda inside, request: end(inside))
    run = submit(context)
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(_KILLED))
    with subprocess.Popen([sys.executable, script, tmp_path, kind, run.id], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"working\n"
        os.kill(process.pid, signal.SIGKILL)
    assert context.store.runs.get(run.id).status == "running"
    if kind == "foreground":  # its lease is 30 s: let the clock say it is over
        context.store.jobs._clock = lambda: time.time_ns() // 1_000_000 + 60_000
    worker = Worker(context, poll_s=0.01)
    worker.start()
    wait_until(lambda: context.store.jobs.get(job_id(run.id)).status == ends)
    worker.stop()
    settle_orphans(context.store)
    ended = context.store.runs.get(run.id)
    assert ended.status == ends
    assert (ended.error is not None) == (ends == "failed")
