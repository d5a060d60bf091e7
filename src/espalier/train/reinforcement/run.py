"""One GRPO run from its job to an adapter's folder. Knows TRL by `trainer` alone.

A killed run goes on from TRL's last checkpoint. It is not promised to end in the same bytes: sampling resumes from
the saved random state, but answers that were half graded are made anew.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espalier.core.errors import Conflict, Interrupted, InvalidInput, MissingExtra
from espalier.core.events import Emit, Event
from espalier.core.ids import canonical_json, digest_of
from espalier.metrics.metric import make_metric
from espalier.nn.adapters import Adapters, attach_adapters, continue_adapters, save_adapter
from espalier.nn.base import LoadedBase, load_base
from espalier.store.examples import read_examples
from espalier.train.method import OpenModel
from espalier.train.progress import Clock, Progress
from espalier.train.recipe import WITHOUT_EFFECT
from espalier.train.reinforcement.rewards import ROW, Case, Reward, make_model_reward, make_reward, read_case
from espalier.train.reinforcement.spec import GrpoSpec

if TYPE_CHECKING:
    from espalier.train.job import Job, TrainResult

_QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


def reinforce(job: Job, emit: Emit, open_model: OpenModel | None) -> TrainResult:
    """Train the adapter and write it to `job.out_dir`; goes on from `job.checkpoint_dir` where a run was cut off.

    Raises MissingExtra without TRL, InvalidInput (no prompt that fits, a grader that fails, a loss that is no number),
    Conflict (the checkpoint is of another run).
    """
    from espalier.train.job import TrainResult

    spec = job.spec
    assert isinstance(spec, GrpoSpec)
    _require_trl()
    base = load_base(spec.base, dtype="float32", quantise=spec.quantise)
    cases = _read_prompts(job, spec, base, emit)
    total = sum(weight.numel() for weight in base.model.parameters())
    adapters = (
        continue_adapters(base, job.adapter) if job.adapter else attach_adapters(base.model, spec.lora, spec.seed)
    )
    _check_identity(job, base, cases)
    with ExitStack() as stack:
        rewards, weights = _open_rewards(spec, cases, open_model, stack)
        progress = _train(job, spec, base, adapters, cases, (rewards, weights), emit)
    if not all(bool(tensor.isfinite().all()) for tensor in adapters.parameters()):
        raise InvalidInput("the adapter holds numbers that are not finite", hint="lower the learning rate")
    values = spec.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
    recipe = sha256(canonical_json({"method": job.method, **values})).hexdigest()
    save_adapter(job.out_dir, adapters, base, dataset=job.dataset, recipe=recipe)
    trained = sum(tensor.numel() for tensor in adapters.parameters())
    return TrainResult(progress, base.base_digest, trained, total + trained)


def _require_trl() -> None:
    try:
        import trl  # noqa: F401 (only whether it is there)
    except ModuleNotFoundError as error:
        raise MissingExtra("grpo runs in TRL, which is not installed", hint="pip install 'espalier[rl]'") from error


def _read_prompts(job: Job, spec: GrpoSpec, base: LoadedBase, emit: Emit) -> list[Case]:
    """The train split's questions that leave room for an answer."""
    room = min(spec.context_tokens, base.context_tokens) - spec.max_completion_tokens
    cases = [read_case(example) for example in read_examples(job.sources[0].folder, "train")]
    fitting = [case for case in cases if len(base.tokenizer.encode_prompt(case.question)) <= room]
    if not fitting:
        raise InvalidInput(
            f"none of {len(cases)} prompts leaves room for {spec.max_completion_tokens} tokens of an answer"
            if cases
            else "the dataset has no training example",
            hint="raise `context_tokens` or lower `max_completion_tokens`",
        )
    emit(Event("train.prompts", {"prompts": len(fitting), "dropped": len(cases) - len(fitting), "room_tokens": room}))
    return fitting


def _check_identity(job: Job, base: LoadedBase, cases: Sequence[Case]) -> None:
    """Raises Conflict when the checkpoints are another run's."""
    recipe = job.spec.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
    prompts = [[case.id, case.reference, *(turn.content for turn in case.question)] for case in cases]
    start = sha256((job.adapter / "adapter_model.safetensors").read_bytes()).hexdigest() if job.adapter else ""
    identity = digest_of([recipe, base.base_digest, start, prompts])
    path = job.checkpoint_dir / "identity.json"
    if path.is_file() and json.loads(path.read_text())["identity"] != identity:
        raise Conflict(
            f"the checkpoints in {job.checkpoint_dir} belong to another run (other data, base or recipe)",
            hint="use another folder, or delete it to start afresh",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"identity": identity}))


def _open_rewards(
    spec: GrpoSpec, cases: Sequence[Case], open_model: OpenModel | None, stack: ExitStack
) -> tuple[list[Reward], list[float]]:
    """Every grader as TRL calls it, and its weight."""

    def open_judge(options: Mapping[str, Any]) -> Any:
        if open_model is None:
            raise InvalidInput("a judge cannot be asked here", hint="run it through `espalier train`")
        return stack.enter_context(open_model(options))

    rewards = [make_reward(make_metric(grader, open_judge), cases) for grader in spec.graders]
    weights = [grader.weight for grader in spec.graders]
    if spec.reward_model:
        from espalier.nn.scoring import open_scorer

        scorer = open_scorer(load_base(spec.base), Path(spec.reward_model))
        rewards.append(make_model_reward(scorer.reward, cases))
        weights.append(spec.reward_model_weight)
    return rewards, weights


def _train(
    job: Job,
    spec: GrpoSpec,
    base: LoadedBase,
    adapters: Adapters,
    cases: Sequence[Case],
    graded: tuple[list[Reward], list[float]],
    emit: Emit,
) -> Progress:
    with _quietly():
        from datasets import Dataset
        from transformers import AutoTokenizer

        from espalier.train.reinforcement.trainer import Reporter, Trainer, newest_checkpoint

        progress = Progress()
        clock = Clock(progress)

        def tell(step: int, steps: int, figures: Mapping[str, float]) -> None:
            tokens = int(figures.get("num_tokens", 0)) - progress.tokens
            if "loss" not in figures:  # the reporter passes finite numbers alone
                raise InvalidInput(
                    f"training diverged at step {step}: the loss is not a finite number", hint="lower the learning rate"
                )
            progress.step = step - 1
            progress.count(figures["loss"], tokens=tokens, supervised_tokens=0)
            clock.read(progress)
            emit(Event("train.step", {"step": step, "steps": steps, **_rename(figures)}))

        prompts = [base.tokenizer.render(case.question, add_generation_prompt=True) for case in cases]
        rewards, weights = graded
        trainer = Trainer(
            learnt=adapters.named_parameters(),
            encode=base.tokenizer.encode,
            beta=spec.beta,
            model=base.model,
            reward_funcs=rewards,
            args=_configure(job, spec, weights),
            train_dataset=Dataset.from_dict({"prompt": prompts, ROW: list(range(len(prompts)))}),
            processing_class=AutoTokenizer.from_pretrained(base.path, local_files_only=True, padding_side="left"),
            callbacks=[Reporter(tell)],
        )
        found = newest_checkpoint(job.checkpoint_dir)
        if found is not None:
            emit(Event("train.resumed", {"step": int(found.name.rpartition("-")[2])}))
        try:
            trainer.train(resume_from_checkpoint=str(found) if found else None)
        except Interrupted:
            trainer.save_now()  # whoever watches raised it from `emit`, between two steps
            raise
    progress.step = trainer.state.global_step
    emit(Event("train.done", progress.to_json()))
    return progress


def _configure(job: Job, spec: GrpoSpec, weights: list[float]) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(job.checkpoint_dir),
        seed=spec.seed,
        num_train_epochs=spec.epochs,
        max_steps=spec.steps or -1,
        learning_rate=spec.lr,
        weight_decay=spec.weight_decay,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(spec.schedule, spec.schedule),
        warmup_steps=spec.warmup_steps,
        max_grad_norm=spec.clip_norm,
        per_device_train_batch_size=spec.generations,
        gradient_accumulation_steps=spec.prompts_per_step,
        num_generations=spec.generations,
        max_completion_length=spec.max_completion_tokens,
        temperature=spec.temperature,
        top_p=spec.top_p,
        epsilon=spec.epsilon,
        epsilon_high=spec.epsilon_high or None,
        num_iterations=spec.iterations,
        loss_type=spec.loss,
        scale_rewards=spec.scale_rewards,
        mask_truncated_completions=spec.mask_truncated,
        reward_weights=weights,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=spec.checkpoint_every_steps,
        save_total_limit=2,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        dataloader_num_workers=0,
    )


def _rename(figures: Mapping[str, float]) -> dict[str, float]:
    """TRL's names as ours: `rewards/exact_match/mean` -> `reward/exact_match`."""
    kept = {"loss", "reward", "reward_std", "kl", "entropy", "grad_norm", "learning_rate"}
    found = {name: value for name, value in figures.items() if name in kept}
    for name, value in figures.items():
        parts = name.split("/")
        if parts[0] == "rewards" and parts[-1] == "mean":
            found[f"reward/{parts[1]}"] = value
    more = {"completion_tokens": "completions/mean_length", "clipped_share": "completions/clipped_ratio"}
    return found | {ours: figures[theirs] for ours, theirs in more.items() if theirs in figures}


@contextmanager
def _quietly() -> Iterator[None]:
    """Inside, neither TRL nor what it stands on prints, warns of its own affairs, or calls home."""
    from transformers.utils import logging as transformers_logging

    before = {name: os.environ.get(name) for name in _QUIET}
    verbosity = transformers_logging.get_verbosity()
    os.environ.update(_QUIET)
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
