"""The queue against a model of it: whatever workers do and time does, a job ends once, by its lease's holder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from espalier.core.errors import Conflict, EspalierError, LeaseLost
from espalier.store.database import Database, sqlite_url
from espalier.store.jobs import Jobs, Lease
from espalier.store.schema import migrate
from espalier.store.store import Store

TTL_MS = 1000


@dataclass
class Expected:
    status: str = "queued"
    attempts: int = 0
    max_attempts: int = 1
    due_ms: int = 0
    token: int = 0
    until_ms: int = 0
    cancel: bool = False


class QueueMachine(RuleBasedStateMachine):
    leases: Bundle[Lease] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.database = Database(sqlite_url(self.folder / "queue.db"))
        migrate(self.database)
        self.now = 1_000_000
        self.jobs = Jobs(self.database, lambda: self.now)
        self.model: dict[str, Expected] = {}

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    @rule(max_attempts=st.integers(1, 3), delay_s=st.sampled_from([0, 0, 1]))
    def enqueue(self, max_attempts: int, delay_s: int) -> None:
        self.now += 1  # ids sort by the wall clock, so equal times would leave the order open
        job = self.jobs.enqueue("x", {}, "ann", max_attempts=max_attempts, delay_s=delay_s)
        self.model[job.id] = Expected(max_attempts=max_attempts, due_ms=self.now + delay_s * 1000)

    @rule(milliseconds=st.sampled_from([1, 500, 1001]))
    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule(target=leases)
    def lease(self) -> object:
        for job in self.model.values():
            if job.status == "running" and job.until_ms < self.now:
                if job.cancel:
                    job.status = "cancelled"
                elif job.attempts >= job.max_attempts:
                    job.status = "failed"
                else:
                    job.status, job.due_ms = "queued", self.now
        due = [job for job in self.model.values() if job.status == "queued" and job.due_ms <= self.now]
        lease = self.jobs.lease("w", TTL_MS / 1000)
        if lease is None:
            assert not due
            return multiple()
        job = self.model[lease.job.id]
        assert job in due
        assert job.due_ms == min(other.due_ms for other in due)
        job.status, job.attempts, job.until_ms = "running", job.attempts + 1, self.now + TTL_MS
        assert lease.token > job.token
        job.token = lease.token
        return lease

    def holds(self, lease: Lease) -> bool:
        job = self.model[lease.job.id]
        return job.status == "running" and job.token == lease.token

    @rule(lease=leases)
    def heartbeat(self, lease: Lease) -> None:
        if self.holds(lease):
            assert self.jobs.heartbeat(lease).cancel_requested == self.model[lease.job.id].cancel
            self.model[lease.job.id].until_ms = self.now + TTL_MS
        else:
            with pytest.raises(LeaseLost):
                self.jobs.heartbeat(lease)

    @rule(lease=consumes(leases))
    def complete(self, lease: Lease) -> None:
        if self.holds(lease):
            self.jobs.complete(lease)
            self.model[lease.job.id].status = "succeeded"
        else:
            with pytest.raises(LeaseLost):
                self.jobs.complete(lease)

    @rule(lease=consumes(leases), retry=st.booleans())
    def fail(self, lease: Lease, retry: bool) -> None:
        if not self.holds(lease):
            with pytest.raises(LeaseLost):
                self.jobs.fail(lease, EspalierError("x"), 1 if retry else None)
            return
        self.jobs.fail(lease, EspalierError("x"), 1 if retry else None)
        job = self.model[lease.job.id]
        if not retry or job.attempts >= job.max_attempts:
            job.status = "failed"
        elif job.cancel:
            job.status = "cancelled"
        else:
            job.status, job.due_ms = "queued", self.now + 1000

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        job = self.model[name]
        if job.status == "queued":
            self.jobs.cancel(name)
            job.status = "cancelled"
        elif job.status == "running":
            self.jobs.cancel(name)
            job.cancel = True
        else:
            with pytest.raises(Conflict):
                self.jobs.cancel(name)

    @invariant()
    def the_queue_is_as_the_model_says(self) -> None:
        found = {job.id: (job.status, job.attempts, job.token) for job in self.jobs.list(limit=1000)}
        assert found == {name: (job.status, job.attempts, job.token) for name, job in self.model.items()}


QueueMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestQueue = QueueMachine.TestCase


def test_a_worker_killed_with_9_loses_its_job_to_another_and_its_completion_is_refused(store: Store) -> None:
    job = store.jobs.enqueue("train", {}, "ann")
    code = f"""
import sys, time
from pathlib import Path
from espalier.store.store import open_store
from espalier.store.workspace import Workspace
lease = open_store(Workspace(Path({str(store.workspace.root)!r}))).jobs.lease("dead", 0.5)
print(lease.token, flush=True)
time.sleep(600)
"""
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    token = int(worker.stdout.readline())
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    held = store.jobs.get(job.id)
    assert (held.status, held.worker) == ("running", "dead")
    dead = Lease(held, "dead", token, 0.5, held.lease_until_ms)

    later = Jobs(store.database, lambda: held.lease_until_ms + 1)
    living = later.lease("living")
    assert living is not None
    assert living.job.attempts == 2
    with pytest.raises(LeaseLost):
        later.complete(dead)
    assert later.complete(living).status == "succeeded"
