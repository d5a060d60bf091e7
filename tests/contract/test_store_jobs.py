"""The durable queue, on every database: leases, fencing, retries, cancellation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from espalier.core.errors import Conflict, EspalierError, LeaseLost, NotFound
from espalier.store.jobs import Jobs, Lease
from espalier.store.store import Store

AtOnce = Callable[[int, Callable[[int], Any]], list[Any]]


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(store: Store, clock: Clock) -> Jobs:
    return Jobs(store.database, clock)


def take(jobs: Jobs, worker: str = "w1", ttl_s: float = 10) -> Lease:
    lease = jobs.lease(worker, ttl_s)
    assert lease is not None
    return lease


def test_jobs_are_taken_oldest_first_and_each_once(jobs: Jobs, clock: Clock) -> None:
    wanted = []
    for number in range(3):
        wanted.append(jobs.enqueue("train", {"n": number}, "ann").id)
        clock.ms += 1
    assert [take(jobs).job.id for _ in range(3)] == wanted
    assert jobs.lease("w2") is None


def test_a_worker_takes_only_operations_it_knows(jobs: Jobs) -> None:
    jobs.enqueue("train", {}, "ann")
    assert jobs.lease("w1", operations=["evals"]) is None
    assert jobs.lease("w1", operations=["evals", "train"]) is not None


def test_a_completed_job_keeps_its_result(jobs: Jobs) -> None:
    job = jobs.enqueue("train", {"rank": 8}, "ann")
    jobs.complete(take(jobs), {"run": "run_1"})
    done = jobs.get(job.id)
    assert (done.status, done.result, done.payload, done.attempts) == ("succeeded", {"run": "run_1"}, {"rank": 8}, 1)


def test_a_job_of_a_silent_worker_goes_to_another_and_the_late_word_is_refused(jobs: Jobs, clock: Clock) -> None:
    job = jobs.enqueue("train", {}, "ann")
    dead = take(jobs, "dead")
    clock.ms += 10_001
    living = take(jobs, "living")
    assert (living.job.id, living.job.attempts) == (job.id, 2)
    assert living.token > dead.token
    for late in (
        lambda: jobs.complete(dead),
        lambda: jobs.heartbeat(dead),
        lambda: jobs.fail(dead, EspalierError("x")),
        lambda: jobs.cancelled(dead),
        lambda: jobs.release(dead),
    ):
        with pytest.raises(LeaseLost):
            late()
    assert jobs.complete(living).status == "succeeded"
    with pytest.raises(LeaseLost):
        jobs.complete(living)


def test_heartbeats_keep_a_lease(jobs: Jobs, clock: Clock) -> None:
    jobs.enqueue("train", {}, "ann")
    lease = take(jobs)
    for _ in range(5):
        clock.ms += 9_000
        lease = jobs.heartbeat(lease)
    assert jobs.lease("w2") is None
    assert jobs.complete(lease).attempts == 1


def test_a_lease_that_ended_but_was_not_taken_still_counts(jobs: Jobs, clock: Clock) -> None:
    jobs.enqueue("train", {}, "ann")
    lease = take(jobs)
    clock.ms += 60_000
    assert jobs.complete(lease).status == "succeeded"


def test_attempts_end_with_the_last_worker_dying(jobs: Jobs, clock: Clock) -> None:
    job = jobs.enqueue("train", {}, "ann", max_attempts=2)
    for worker in ("w1", "w2"):
        take(jobs, worker)
        clock.ms += 10_001
    assert jobs.lease("w3") is None
    ended = jobs.get(job.id)
    assert ended.status == "failed"
    assert ended.error is not None
    assert "w2" in ended.error["message"]


def test_a_failure_is_tried_again_after_its_pause_until_attempts_end(jobs: Jobs, clock: Clock) -> None:
    job = jobs.enqueue("train", {}, "ann", max_attempts=2)
    jobs.fail(take(jobs), EspalierError("flaky"), retry_in_s=5)
    assert jobs.lease("w1") is None
    clock.ms += 5_000
    jobs.fail(take(jobs), EspalierError("flaky"), retry_in_s=5)
    ended = jobs.get(job.id)
    assert (ended.status, ended.attempts) == ("failed", 2)
    assert ended.error is not None
    assert ended.error["message"] == "flaky"


def test_a_failure_without_a_retry_is_final(jobs: Jobs) -> None:
    job = jobs.enqueue("train", {}, "ann")
    jobs.fail(take(jobs), EspalierError("bad recipe"))
    assert jobs.get(job.id).status == "failed"


def test_a_released_job_is_queued_again_with_its_attempt_uncounted(jobs: Jobs) -> None:
    job = jobs.enqueue("train", {}, "ann")
    jobs.release(take(jobs))
    assert (jobs.get(job.id).status, jobs.get(job.id).attempts) == ("queued", 0)
    assert take(jobs, "w2").job.id == job.id


def test_a_waiting_job_is_cancelled_at_once(jobs: Jobs) -> None:
    job = jobs.enqueue("train", {}, "ann")
    assert jobs.cancel(job.id).status == "cancelled"
    assert jobs.lease("w1") is None
    with pytest.raises(Conflict):
        jobs.cancel(job.id)


def test_a_running_job_hears_of_its_cancellation_at_the_next_heartbeat(jobs: Jobs) -> None:
    job = jobs.enqueue("train", {}, "ann")
    lease = take(jobs)
    assert jobs.cancel(job.id).status == "running"
    beat = jobs.heartbeat(lease)
    assert beat.cancel_requested
    assert jobs.cancelled(beat).status == "cancelled"


def test_a_cancelled_job_whose_worker_died_is_not_done_again(jobs: Jobs, clock: Clock) -> None:
    job = jobs.enqueue("train", {}, "ann")
    take(jobs)
    jobs.cancel(job.id)
    clock.ms += 10_001
    assert jobs.lease("w2") is None
    assert jobs.get(job.id).status == "cancelled"


def test_an_idempotency_key_gives_the_job_it_made_before(jobs: Jobs) -> None:
    first = jobs.enqueue("train", {"rank": 8}, "ann", "key-1")
    assert jobs.enqueue("train", {"rank": 8}, "ann", "key-1").id == first.id
    assert len(jobs.list()) == 1
    with pytest.raises(Conflict):
        jobs.enqueue("train", {"rank": 16}, "ann", "key-1")


def test_a_job_can_be_taken_by_its_id(jobs: Jobs) -> None:
    jobs.enqueue("train", {}, "ann")
    wanted = jobs.enqueue("train", {}, "ann")
    lease = jobs.lease("w1", job_id=wanted.id)
    assert lease is not None
    assert lease.job.id == wanted.id
    assert jobs.lease("w2", job_id=wanted.id) is None


def test_a_job_kept_waiting_is_given_to_who_names_it_and_to_others_once_it_is_let_go(jobs: Jobs) -> None:
    named, let_go = (jobs.enqueue("train", {}, "ann", delay_s=60) for _ in range(2))
    assert jobs.lease("anybody") is None
    assert jobs.lease("its maker", job_id=named.id) is not None
    jobs.expedite(let_go.id)
    assert take(jobs, "anybody").job.id == let_go.id
    jobs.expedite(let_go.id)  # it runs by now: nothing changes
    assert jobs.get(let_go.id).worker == "anybody"


def test_a_job_that_is_not_there_is_not_found(jobs: Jobs) -> None:
    with pytest.raises(NotFound):
        jobs.get("job_x")


def test_of_many_workers_that_ask_at_once_each_gets_a_job_of_its_own(jobs: Jobs, at_once: AtOnce) -> None:
    for number in range(8):
        jobs.enqueue("train", {"n": number}, "ann")
    leases = at_once(12, lambda index: jobs.lease(f"w{index}"))
    taken = [lease.job.id for lease in leases if lease is not None]
    assert len(taken) == len(set(taken)) == 8


def test_completing_commits_with_what_it_made(store: Store, jobs: Jobs, clock: Clock) -> None:
    jobs.enqueue("train", {}, "ann")
    dead = take(jobs)
    clock.ms += 10_001
    take(jobs, "other")
    with pytest.raises(LeaseLost), store.transaction():
        store.audit.append("dead", "models.register", "model:a@v1")
        jobs.complete(dead)
    assert store.audit.head()[0] == 0
