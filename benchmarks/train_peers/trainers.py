"""Measuring a transformers Trainer (TRL's and Unsloth's are such): one pass to warm up, one pass over all documents."""

from __future__ import annotations

from typing import Any

import torch
from meter import Meter
from transformers import Trainer, TrainerCallback

PLAIN: dict[str, Any] = {  # what has nothing to do with speed, or would only cost it
    "report_to": "none",
    "save_strategy": "no",
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "disable_tqdm": True,
    "use_cpu": not torch.cuda.is_available(),
    "dataloader_num_workers": 0,
    "dataloader_pin_memory": False,
    "seed": 0,
}


class _Losses(TrainerCallback):  # type: ignore[misc]
    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **given: Any) -> None:
        if logs and "loss" in logs:
            self.meter.losses.append(float(logs["loss"]))


def measure(trainer: Trainer, meter: Meter, *, warm_whole_pass: bool = False) -> None:
    """Train for a step (or a whole pass, where shapes must be compiled), then for one measured pass."""
    trainer.add_callback(_Losses(meter))
    plain_step = trainer.training_step

    def counted(model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        meter.tokens += inputs["input_ids"].numel()
        return plain_step(model, inputs, *more, **named)

    trainer.training_step = counted
    trainer.args.num_train_epochs = 1
    trainer.args.max_steps = -1 if warm_whole_pass else 1
    trainer.train()
    trainer.args.max_steps = -1
    meter.begin()
    trainer.train()
    meter.end()
    trainer.model.save_pretrained(meter.job["out"])
