"""`grpo`: an adapter learns from grades of its own answers (group relative policy optimisation), through TRL.

Shao et al. 2024, arXiv:2402.03300. The loop is TRL's; the base, the adapter, the prompts, the graders and what is
written are ours. Needs the extra `rl`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.core.errors import InvalidInput
from espalier.core.events import Emit
from espalier.train.method import Method, OpenModel, Prepared, Setting
from espalier.train.reinforcement.spec import GrpoSpec

if TYPE_CHECKING:
    from espalier.train.job import Job, TrainResult


def prepare(setting: Setting) -> Prepared:
    """Never called: the method runs by itself."""
    raise InvalidInput(
        "grpo has no documents to lay out", hint="an estimate or a search of a grpo recipe is not possible"
    )


def run(job: Job, emit: Emit, open_model: OpenModel | None) -> TrainResult:
    """Raises MissingExtra without TRL, and what `reinforce` raises."""
    from espalier.train.reinforcement.run import reinforce

    return reinforce(job, emit, open_model)


def list_files(spec: Any, folder: Path) -> Iterable[Path]:
    """Schemas, Python files of graders, and the reward model's files."""
    paths = [path for grader in spec.graders for path in grader.list_files()]
    found = [path for path in paths if (folder / path).is_file()]
    reward_model = folder / spec.reward_model
    return [*found, *(sorted(reward_model.iterdir()) if spec.reward_model and reward_model.is_dir() else ())]


METHOD = Method("grpo", GrpoSpec, "learn from graders of its own answers, through TRL", prepare, list_files, run)
