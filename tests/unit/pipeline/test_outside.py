"""Steps whose inputs no key can hold wholly: what they read outside, and environment variables their spec names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import Interrupted
from espalier.pipeline.executors.port import never_stop
from espalier.pipeline.locks import FileLock

DECLARED = 'files=named_files, env=("TOY_SUFFIX",))'


def read_from_a_bucket(project: Any) -> None:
    project.edit("toy_steps.py", DECLARED, 'files=named_files, outside=lambda spec: "s3://bucket")')


def test_what_reads_outside_is_done_every_time_and_says_why(project: Any) -> None:
    read_from_a_bucket(project)
    project.run()
    second = project.run()
    assert second.nodes["read"].status == "ran" and second.nodes["read"].reason.startswith("reads s3://bucket")
    assert second.nodes["count"].status == "hit"  # it was the same again


def test_two_runs_that_read_outside_do_not_share_a_scratch_folder(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_from_a_bucket(project)
    locked: list[Path] = []
    acquire = FileLock.acquire

    def note(lock: FileLock, stop: Any = never_stop) -> None:
        locked.append(lock.path)
        acquire(lock, stop)

    monkeypatch.setattr(FileLock, "acquire", note)
    project.run()
    other = FileLock(next(path for path in locked if "scratch" in path.parts))
    assert other.try_acquire()  # as if another run were at the step
    try:
        with pytest.raises(Interrupted):
            project.run(stop=lambda: locked.count(other.path) > 1)
    finally:
        other.release()


def test_a_variable_that_the_spec_names_is_in_the_key(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project.edit("toy_steps.py", DECLARED, 'files=named_files, env=lambda spec: ["TOY_SUFFIX"])')
    monkeypatch.setenv("TOY_SUFFIX", "one")
    project.run()
    assert project.run().hits == 2
    monkeypatch.setenv("TOY_SUFFIX", "two")
    assert project.run().hits < 2
