"""Search: trainings with varied fields, each an ordinary run, led by Optuna (https://optuna.org) and resumable.

The study is a journal file in the workspace, named by what is searched on what. A search that was killed goes on: a
trial under way then is taken up again with the same fields, and its training from its checkpoint.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.core.errors import Interrupted, InvalidInput, MissingExtra, did_you_mean
from espalier.core.events import Event
from espalier.core.ids import digest_of
from espalier.core.types import Run

if TYPE_CHECKING:
    import optuna

    from espalier.services.context import Context
    from espalier.services.tuning import TuneModel
    from espalier.train.search import Among, Between, SearchSpec


@dataclass(slots=True)
class _Watch:
    """What is seen of a training while it runs: looks at validation, and whether it is worth going on."""

    trial: optuna.Trial
    measure: str
    looks: dict[int, float] = field(default_factory=dict)
    pruned: bool = False

    def __call__(self, event: Event) -> None:
        value = event.data.get(self.measure)
        if event.kind != "train.eval" or not isinstance(value, int | float):
            return
        step = int(event.data["step"])
        self.looks[step] = float(value)
        self.trial.report(float(value), step)
        self.pruned = self.pruned or self.trial.should_prune()


def run_search(context: Context, spec: SearchSpec, request: TuneModel, folder: Path) -> Run:
    """Do the trials that are left; the run then holds the best one's outputs and metrics.

    Raises MissingExtra without Optuna, InvalidInput for an unknown field or measure, or when no trial came to its end.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtra("a search needs Optuna", hint="pip install 'espalier[search]'") from error
    optuna.logging.disable_default_handler()
    study = _open_study(context, spec, request)
    _take_up(study)
    done = sum(trial.state.is_finished() and trial.state.name != "FAIL" for trial in study.get_trials(deepcopy=False))
    for _ in range(max(0, _count_planned(spec) - done)):
        trial = study.ask()
        values = {name: _draw(trial, name, given) for name, given in spec.space.items()}
        _try(context, spec, request, folder, study, trial, values)
    return _conclude(context, study, spec)


def _try(
    context: Context,
    spec: SearchSpec,
    request: TuneModel,
    folder: Path,
    study: optuna.Study,
    trial: optuna.Trial,
    values: Mapping[str, Any],
) -> None:
    """One trial, told to the study whatever comes of it; only an interruption of the search itself is passed on."""
    from optuna.trial import TrialState

    watch = _Watch(trial, spec.measure)
    context.emit(Event("search.trial", {"number": trial.number, "of": spec.trials, "fields": dict(values)}))
    try:
        run = _train(context, request, folder, values, watch)
        if spec.measure not in run.metrics:
            raise InvalidInput(
                f"the trainings measure no {spec.measure!r}", hint=did_you_mean(spec.measure, run.metrics)
            )
    except Interrupted:
        if not watch.pruned:
            raise  # the trial stays under way, and is taken up next time
        study.tell(trial, state=TrialState.PRUNED)
        said: dict[str, Any] = {"state": "pruned", "step": max(watch.looks, default=0)}
    except InvalidInput as error:
        if "diverged" not in error.message and "not finite" not in error.message:
            study.tell(trial, state=TrialState.FAIL)
            raise
        study.tell(trial, state=TrialState.PRUNED)
        said = {"state": "diverged", "why": error.message}
    else:
        trial.set_user_attr("outputs", run.outputs)
        trial.set_user_attr("metrics", run.metrics)
        study.tell(trial, run.metrics[spec.measure])
        said = {"state": "done", spec.measure: run.metrics[spec.measure]}
    context.emit(Event("search.told", {"number": trial.number, **said}))


def _train(context: Context, request: TuneModel, folder: Path, values: Mapping[str, Any], watch: _Watch) -> Run:
    """The trial's training as an ordinary run; one with the same fields as an earlier one is a hit."""
    from espalier.services.execution import execute_step
    from espalier.services.tuning import list_inputs, read_training

    def emit(event: Event) -> None:
        context.emit(event)
        watch(event)

    watched = replace(context, emit=emit, stopped=lambda: watch.pruned or context.stopped())
    param = (*request.param, *(f"{name}={value}" for name, value in values.items()))
    method, training, path = read_training(watched, request.recipe, param)
    name = f"{path.stem} {digest_of(dict(values))[:8]}"
    execute_step(watched, f"train.{method}", training, name=name, folder=folder, inputs=list_inputs(context, request))
    trained = [run for run in context.store.runs.list(parent=context.run_id) if run.step.startswith("train.")]
    return trained[0]  # the newest


def _open_study(context: Context, spec: SearchSpec, request: TuneModel) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    searched = spec.model_dump(mode="json", exclude={"trials"})
    name = digest_of({"search": searched, "on": request.model_dump(mode="json")})[:16]
    folder = context.workspace.root / ".espalier" / "searches"
    folder.mkdir(parents=True, exist_ok=True)
    samplers: dict[str, Any] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=spec.seed, n_startup_trials=spec.warmup_trials),
        "random": lambda: optuna.samplers.RandomSampler(seed=spec.seed),
        "grid": lambda: optuna.samplers.RandomSampler(seed=spec.seed),  # what is tried is asked for in advance
    }
    pruners: dict[str, Any] = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=spec.warmup_trials),
        "hyperband": optuna.pruners.HyperbandPruner,
        "none": optuna.pruners.NopPruner,
    }
    study = optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(folder / f"{name}.journal"))),
        direction=spec.direction,
        sampler=samplers[spec.sampler](),
        pruner=pruners[spec.pruner](),
        load_if_exists=True,
    )
    if spec.sampler == "grid":
        grid = _grid(spec)
        for values in itertools.product(*grid.values()):
            study.enqueue_trial(dict(zip(grid, values, strict=True)), skip_if_exists=True)
    return study


def _take_up(study: optuna.Study) -> None:
    """Trials that were under way when a search died: their fields are asked for first."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _draw(trial: optuna.Trial, name: str, given: Among | Between) -> Any:
    from espalier.train.search import Among

    if isinstance(given, Among):
        return trial.suggest_categorical(name, list(given.choices))
    if given.integer:
        return trial.suggest_int(name, int(given.low), int(given.high), log=given.log)
    return trial.suggest_float(name, given.low, given.high, log=given.log)


def _count_planned(spec: SearchSpec) -> int:
    """As many trials as asked for, and of a grid no more than it has."""
    return min(spec.trials, math.prod(map(len, _grid(spec).values()))) if spec.sampler == "grid" else spec.trials


def _grid(spec: SearchSpec) -> dict[str, list[Any]]:
    from espalier.train.search import Among

    grid = {name: list(given.choices) for name, given in spec.space.items() if isinstance(given, Among)}
    for name in spec.space.keys() - grid.keys():
        raise InvalidInput(f"a grid needs choices for {name}", hint="list them, or use sampler: tpe")
    return grid


def _conclude(context: Context, study: optuna.Study, spec: SearchSpec) -> Run:
    try:
        best = study.best_trial
    except ValueError:
        raise InvalidInput("no trial came to its end", hint="widen the space, or lower the learning rates") from None
    context.emit(Event("search.best", {"number": best.number, spec.measure: best.value, "fields": best.params}))
    metrics = {**best.user_attrs["metrics"], "best_trial": best.number, "trials": len(study.trials)}
    return context.store.runs.update(
        context.run_id,
        outputs=best.user_attrs["outputs"],
        metrics=metrics,
        spec={"search": spec.model_dump(mode="json"), "best": best.params},
    )
