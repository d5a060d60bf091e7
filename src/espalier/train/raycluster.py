"""A job on the workers of a Ray cluster: `python -m espalier.train.raycluster FOLDER WORKERS`, started by train/launch.

The cluster is the one of RAY_ADDRESS, else one of this machine, started here and ended with it. Workers find what the
job names by path, so base, data and checkpoints must be on a disk that all of them see. Nothing is reported to anyone.
Knows Ray; what a worker does is train/member's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # importing torch takes its time on a busy machine
    "RAY_worker_niceness": "0",  # Ray has workers give way to everything else (15); they are the work here
}


def main() -> None:
    """Run the folder's job on so many workers."""
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    sys.exit(train_on_ray(folder, workers))


def train_on_ray(folder: Path, workers: int) -> int:
    """Exit code 0 when every worker did its part; what went wrong is in the folder (see train/member)."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray
    import torch
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.base_trainer import TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    cuda = torch.cuda.is_available()
    own = {"num_cpus": max(workers, os.cpu_count() or 1), "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(log_to_driver=False, logging_level="error", **({} if os.environ.get("RAY_ADDRESS") else own))
    trainer = TorchTrainer(
        _work,
        train_loop_config={"folder": str(folder)},
        torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=cuda),
        run_config=RunConfig(
            name="training", storage_path=str(folder / "ray"), failure_config=FailureConfig(max_failures=0)
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        sys.stderr.write(f"{error}\n")  # the log of whoever started us
        return 1
    finally:
        ray.shutdown()
    return 0


def _work(config: dict[str, Any]) -> None:
    """One Ray worker's part: torch.distributed stands already."""
    import ray.train
    import torch
    from ray.train.torch import get_device

    from espalier.train.member import take_part

    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())
    rank = ray.train.get_context().get_world_rank()
    code = take_part(Path(config["folder"]), rank)
    if code:
        raise RuntimeError(f"worker {rank} ended with exit code {code}")


if __name__ == "__main__":
    main()
