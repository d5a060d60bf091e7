"""Steps `train.sft`, `train.dpo` ...: one for every training method, made from its spec.

A method of one's own is two entry points: `espalier.methods` (mine = "package.module:METHOD") and `espalier.steps`
("train.mine" = "espalier.services.steps.train:mine"); this module answers for any method's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.ports import StepContext
from espalier.core.step import Step, step
from espalier.core.types import Artifact
from espalier.nn.locate import anchor_base, list_base_files
from espalier.train.corpus import Source
from espalier.train.method import Method, load_method
from espalier.train.recipe import TrainSpec

INPUTS = {
    "dataset": "dataset",
    "prompt": "prompt?",  # through which version the questions are asked
    "adapter": "adapter?",  # to go on from
    "base": "base?",  # one made here, instead of the recipe's
    "mix.*": "dataset?",  # further datasets, each with its share in `mix`
}
OUTPUTS = {"adapter": "adapter?", "base": "base?"}  # an adapter (tune: lora, head) or a whole model (tune: full)


def __getattr__(name: str) -> Step:
    if name.startswith("_"):
        raise AttributeError(name)
    return declare_step(load_method(name))


def declare_step(method: Method) -> Step:
    """The step of a method; what it computes stands in the method and in train/runner."""

    def train(context: StepContext, spec: TrainSpec) -> None:
        _train(method, context, spec)

    train.__doc__ = f"{method.summary[:1].upper()}{method.summary[1:]}; resumes from its last checkpoint after a crash."

    def list_files(spec: TrainSpec, folder: Path) -> Iterable[Path]:
        kernels = (Path(__file__).parents[2] / "nn" / "kernels").rglob("*.[ch]")  # code the closure does not see
        return [*list_base_files(anchor_base(spec.base, folder)), *sorted(kernels), *method.files(spec, folder)]

    return step(f"train.{method.name}", version=2, spec=method.spec, inputs=INPUTS, outputs=OUTPUTS, files=list_files)(
        train
    )


def _train(method: Method, context: StepContext, spec: TrainSpec) -> None:
    from espalier.services.bases import name_base
    from espalier.services.measuring import open_judge
    from espalier.train.job import Job
    from espalier.train.launch import launch

    if spec.method not in ("", method.name):
        raise InvalidInput(
            f"the recipe's method is {spec.method}, the step is train.{method.name}", hint="take `method` out"
        )
    made = context.inputs.get("base")
    base = name_base(made.digest) if made else spec.base
    if made:
        spec = spec.model_copy(update={"base": f"path:{context.input('base')}"})
    port = "base" if spec.tune == "full" else "adapter"
    job = Job(
        method=method.name,
        spec=spec,
        sources=find_sources(context, spec),
        out_dir=context.output(port),
        checkpoint_dir=context.scratch / "checkpoints",
        cache_dir=context.cache / "train",
        adapter=context.input("adapter") if "adapter" in context.inputs else None,
        dataset=context.inputs["dataset"].digest,
        base=base,
    )
    result = launch(job, context.emit, open_model=open_judge)
    for name, value in result.metrics.items():
        context.metric(name, value)
    context.describe(port, base=base, base_digest=result.base_digest, method=method.name)


class Given(Protocol):
    """What a training reads: the part of a step's context that is there outside a run, too."""

    @property
    def inputs(self) -> Mapping[str, Artifact]: ...

    @property
    def scratch(self) -> Path: ...

    def input(self, name: str) -> Path: ...


def find_sources(context: Given, spec: TrainSpec) -> tuple[Source, ...]:
    """The main dataset, asked through the prompt, and those of the mix. Raises InvalidInput when the two disagree."""
    from espalier.prompts.catalog import read_prompt
    from espalier.services.rendering import render_dataset

    given = {port.partition(".")[2]: port for port in context.inputs if port.startswith("mix.")}
    for name in spec.mix.keys() ^ given.keys():
        said = "is given no dataset" if name in spec.mix else "has no share"
        raise InvalidInput(
            f"{name!r} of the mix {said}",
            hint=did_you_mean(name, given if name in spec.mix else spec.mix)
            or f"write `mix: {{{name}: 0.25}}` and `--mix {name}=DATASET` (a step: input `mix.{name}: DATASET`)",
        )
    prompt = read_prompt(context.input("prompt")) if "prompt" in context.inputs else None
    main = render_dataset(context.input("dataset"), prompt, context.scratch / "rendered")
    digest = "/".join(context.inputs[port].digest for port in ("dataset", "prompt") if port in context.inputs)
    others = [
        Source(name, context.input(port), context.inputs[port].digest, spec.mix[name])
        for name, port in sorted(given.items())
    ]
    return (Source("", main, digest), *others)
