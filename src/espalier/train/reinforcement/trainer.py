"""TRL's GRPO trainer with what is ours put in: prompts cut as serving cuts them, small checkpoints, no telemetry.

Importing this imports TRL. Knows no dataset and no grader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import GRPOTrainer

WEIGHTS = "learnt.safetensors"
STATE = "trainer_state.json"  # the trainer writes it last


class Trainer(GRPOTrainer):  # type: ignore[misc]
    """`learnt` are the tensors that learn, inside `model`; `encode` gives a rendered prompt's ids."""

    def __init__(
        self, *, learnt: Mapping[str, Tensor], encode: Callable[[str], list[int]], beta: float, **options: Any
    ) -> None:
        self._learnt, self._encode = learnt, encode
        self._start = {name: tensor.detach().clone() for name, tensor in learnt.items()} if beta else {}
        super().__init__(**options)
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        if beta:  # told afterwards: TRL would load a second base as reference; ours is this one, as it began
            self.beta, self.ref_model = beta, _REFERENCE

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self._encode(prompt) for prompt in prompts], None, {}

    def _get_per_token_logps_and_entropies(self, model: Any, *rest: Any, **options: Any) -> Any:
        if model is not _REFERENCE:
            return super()._get_per_token_logps_and_entropies(model, *rest, **options)
        with torch.no_grad(), self._as_begun():
            return super()._get_per_token_logps_and_entropies(self.model, *rest, **options)

    @contextmanager
    def _as_begun(self) -> Iterator[None]:
        """Inside, the model is what it was before the first step."""
        now = {name: tensor.detach().clone() for name, tensor in self._learnt.items()}
        _put(self._learnt, self._start)
        try:
            yield
        finally:
            _put(self._learnt, now)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in self._learnt.items()}
        begun = {f"begun/{name}": tensor.cpu().contiguous() for name, tensor in self._start.items()}
        save_file(kept | begun, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        _put(self._learnt, state)
        self._start = {name: state[f"begun/{name}"].to(tensor.device) for name, tensor in self._start.items()}

    def save_now(self) -> None:
        """Write a checkpoint of the step just done."""
        self._save_checkpoint(self.model, None)

    def _send_telemetry(self) -> None:
        """Nothing phones home."""

    def create_model_card(self, *rest: Any, **options: Any) -> None:
        """What was made is described by our own sidecar."""


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Hands every step's figures on."""

    def __init__(self, tell: Callable[[int, int, Mapping[str, float]], None]) -> None:
        self._tell = tell

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **others: Any) -> None:
        if logs and "loss" in logs:
            figures = {name: float(value) for name, value in logs.items() if _is_number(value)}
            self._tell(state.global_step, state.max_steps, figures)


def newest_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint under `folder`; one that a crash cut short is passed over."""
    found = [path for path in folder.glob("checkpoint-*") if (path / STATE).is_file() and (path / WEIGHTS).is_file()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _put(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


class _Reference:
    """Stands for the model as it began."""


_REFERENCE: Any = _Reference()
