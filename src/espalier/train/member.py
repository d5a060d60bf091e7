"""One of several processes that do one job together: `python -m espalier.train.member FOLDER`, started by torchrun.

The folder, which all of them see, holds `job.json`; process 0 writes `events.jsonl` and `result.json` there, one that
fails `error-RANK.json`, one that is told to end `ended-RANK`. When `stop` appears the run saves a checkpoint and ends.
Who reads that is train/launch; torchrun may be started by hand as well, on several machines:

    torchrun --nproc-per-node 4 -m espalier.train.member FOLDER
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from espalier.core.errors import EspalierError, Interrupted
from espalier.core.events import Emit, Event
from espalier.train.job import Job, TrainResult
from espalier.train.progress import Progress
from espalier.train.runner import run
from espalier.train.world import join_world

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def main() -> None:
    """Take part in the job of the folder named on the command line."""
    die_with_parent()
    folder = Path(sys.argv[1])
    rank = os.environ.get("RANK", "0")

    def end(number: int, frame: object) -> NoReturn:
        (folder / f"ended-{rank}").touch()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    sys.exit(take_part(folder, int(rank)))


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when whoever started this process is gone: nobody would collect what it does."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, number)


def take_part(folder: Path, rank: int) -> int:
    """Do this process's part of the job; what went wrong is left in the folder, and the exit code says so."""
    try:
        job = Job.from_json((folder / "job.json").read_text())
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        cores = max(1, (job.spec.threads or os.cpu_count() or 1) // beside)
        with join_world(cores, lockstep=job.spec.where.shard) as world:
            result = run(job, _write_events(folder), world)
            if rank == 0:
                write_whole(folder / "result.json", result_to_json(result))
        return 0
    except EspalierError as error:
        write_whole(folder / f"error-{rank}.json", error.to_json())
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - it goes on in the process that started this one
        traceback.print_exc()
        said = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        write_whole(folder / f"error-{rank}.json", EspalierError(said).to_json())
        return 1


def _write_events(folder: Path) -> Emit:
    """An Emit that appends to the folder's events, and stops the run where the folder says so."""

    def write(event: Event) -> None:
        with (folder / "events.jsonl").open("a") as file:
            file.write(event.to_json() + "\n")
        if (folder / "stop").exists():
            raise Interrupted("stopped", hint="start it again: it goes on from here")

    return write


def write_whole(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees all of it or no file."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value))
    draft.replace(path)


def result_to_json(result: TrainResult) -> dict[str, Any]:
    """For the process that started the run."""
    return asdict(result) | {"progress": result.progress.to_json(), "figures": dict(result.figures)}


def result_from_json(values: dict[str, Any]) -> TrainResult:
    """The inverse of `result_to_json`."""
    return TrainResult(**values | {"progress": Progress.from_json(values["progress"])})


if __name__ == "__main__":
    main()
