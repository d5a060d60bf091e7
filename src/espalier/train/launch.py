"""Where a job runs: in this process, in several of this machine (torchrun), or on the workers of a Ray cluster.

Several processes are another program to this one: it starts them, passes on what they tell, and raises what they
raised. They all die with it. Knows no loop.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from espalier.core.errors import EspalierError, Interrupted, InvalidInput, MissingExtra, Unavailable, from_json
from espalier.core.events import Emit, Event
from espalier.train.job import Job, TrainResult
from espalier.train.member import die_with_parent, result_from_json
from espalier.train.method import OpenModel, load_method
from espalier.train.recipe import WhereSpec
from espalier.train.runner import run

_LOOK_S = 0.1
_GRACE_S = 40.0  # torchrun gives its processes 30 s to end
_STOP_S = 120.0  # for the step that is under way, and its checkpoint


def launch(job: Job, emit: Emit, *, open_model: OpenModel | None = None) -> TrainResult:
    """Do the job where its spec says.

    Raises what `run` raises, MissingExtra where Ray is wanted and not installed, Unavailable when one of several
    processes is gone: the same call then goes on from the last checkpoint.
    """
    where = job.spec.where
    _check(job, where)
    if where.kind == "here" or where.workers == 1:
        return run(job, emit, open_model=open_model)
    folder = (job.checkpoint_dir / "processes").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(job.to_json())
    _supervise(_command(where, folder), folder, where, emit)
    result = result_from_json(json.loads((folder / "result.json").read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    return result


def _check(job: Job, where: WhereSpec) -> None:
    if where.shard and (where.kind == "here" or where.workers == 1):
        raise InvalidInput(
            "where.shard spreads a base over several processes, and there is one",
            hint="where: {kind: processes, workers: 2, shard: true}",
        )
    if where.shard and (job.spec.tune != "lora" or job.spec.quantise != "none"):
        raise InvalidInput(
            "where.shard spreads a frozen base in its own type, and an adapter learns on it",
            hint="tune: lora and quantise: none; or take `shard` out of `where`",
        )
    if where.kind != "here" and load_method(job.method).run is not None:
        raise InvalidInput(f"{job.method} runs in one process", hint="take `where` out of the recipe")
    if where.kind == "ray" and find_spec("ray") is None:
        raise MissingExtra("`where: ray` needs Ray", hint="pip install 'espalier[ray]'")


def _command(where: WhereSpec, folder: Path) -> list[str]:
    if where.kind == "ray":
        return [sys.executable, "-m", "espalier.train.raycluster", str(folder), str(where.workers)]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(where.workers)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
        *("-m", "espalier.train.member", str(folder)),
    ]


def _supervise(command: list[str], folder: Path, where: WhereSpec, emit: Emit) -> None:
    """Start the processes, pass their events on until they end, and raise what went wrong."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    if where.kind == "processes":  # all on this machine, whatever its name resolves to
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process, which has them save before they end
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
    stopped: Interrupted | None = None
    stopped_s = math.inf
    events = _follow(folder / "events.jsonl")
    try:
        while True:
            code = process.poll()  # before the events, so that the last ones are seen
            for event in next(events):
                try:
                    emit(event)
                except Interrupted as error:
                    if stopped is None:
                        stopped, stopped_s = error, time.monotonic()
                        (folder / "stop").touch()
            if code is not None or time.monotonic() - stopped_s > _STOP_S:
                break
            time.sleep(_LOOK_S)
    finally:
        _end(process)
    if stopped and code != 0:
        raise stopped
    if code:
        raise _find_error(folder, where.workers)


def _follow(path: Path) -> Iterator[list[Event]]:
    """The events written since the last look, whole lines only."""
    read, rest = 0, b""
    while True:
        new = []
        if path.exists():
            with path.open("rb") as file:
                file.seek(read)
                *lines, rest = (rest + file.read()).split(b"\n")
                read = file.tell()
            new = [Event.from_json(line.decode()) for line in lines]
        yield new


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have the processes end, if they have not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _find_error(folder: Path, workers: int) -> EspalierError:
    """What went wrong first: an error that is not a lost connection; a process that vanished; what is left."""
    errors = {
        rank: from_json(json.loads((folder / f"error-{rank}.json").read_text()))
        for rank in range(workers)
        if (folder / f"error-{rank}.json").exists()
    }
    for error in errors.values():
        if not isinstance(error, Unavailable):
            return error
    silent = [rank for rank in range(workers) if rank not in errors and not (folder / f"ended-{rank}").exists()]
    if silent and len(silent) < workers:
        names = ", ".join(str(rank + 1) for rank in silent)
        return Unavailable(
            f"process {names} of {workers} was killed, so the training stopped",
            hint="was memory short? The same command goes on from the last checkpoint",
        )
    last = (folder / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
    return next(iter(errors.values()), Unavailable("the training's processes ended", hint=" ".join(last)))
