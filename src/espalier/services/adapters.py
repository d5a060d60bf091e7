"""Adapters: what one is made of, imports from other trainers, merges into the base, and several made one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Run, Spec
from espalier.nn.adaptersheet import AdapterSheet
from espalier.nn.combination import Combination

if TYPE_CHECKING:
    from espalier.services.context import Context

_NAMED = "model:NAME@vN (its adapter), the id of the run that made one, or sha256:DIGEST"


class ShowAdapter(Spec):
    """Which adapter."""

    adapter: str = Field(description=f"{_NAMED}; or a folder")


@operation("adapters.show", "GET /v1/adapters/show", positional=("adapter",))
def show(context: Context, request: ShowAdapter) -> AdapterSheet:
    """Show an adapter: kind, rank, targets, size, the base it belongs to, and where it came from.

    Example:
        espalier adapter show support@production
    """
    from espalier.nn.adaptersheet import describe_adapter

    return describe_adapter(_find_folder(context, request.adapter))


class ImportAdapter(Spec):
    """What to import, and for which base."""

    source: str = Field(description="folder of an adapter (PEFT, MLX), or a file of its weights (loralib)")
    base: str = Field(description="the base it was trained on: builtin:NAME, path:DIR or hf:OWNER/NAME")
    alpha: float | None = Field(None, gt=0, description="lora_alpha of a loralib file, which does not say it")
    enabled: tuple[bool, ...] = Field((), description="enable_lora of loralib's fused layers; once for each part")


@operation("adapters.import", "POST /v1/adapters/import", shape="job", positional=("source",), role="admin")
def import_(context: Context, request: ImportAdapter) -> Run:
    """Import an adapter that another trainer made, after checking every part against its base; or refuse it.

    Comes in: what PEFT, Unsloth, Axolotl, LLaMA-Factory and MLX write, and state dicts of microsoft/LoRA. Nothing in a
    file is run. What an adapter of ours would leave out, such as a changed vocabulary, is a reason to refuse.

    Example:
        espalier adapter import from-elsewhere --base hf:Qwen/Qwen2.5-0.5B-Instruct
    """
    from espalier.services.execution import execute_step
    from espalier.services.steps.adapter_import import AdapterImportSpec

    source = context.place(request.source).resolve()
    named = source.relative_to(context.start) if source.is_relative_to(context.start) else source
    spec = AdapterImportSpec(source=str(named), base=request.base, alpha=request.alpha, enabled=request.enabled)
    return execute_step(context, "adapter.import", spec, name=source.name, folder=context.start)


class MergeAdapter(Spec):
    """Which adapter, and where the merged base goes."""

    adapter: str = Field(description=_NAMED)
    base: str = Field("", description="where its base is now; empty = where it was in training")
    out: str = Field("", description="new folder for the merged base; empty = it is kept in the store alone")


@operation("adapters.merge", "POST /v1/adapters/merge", shape="job", positional=("adapter",), role="admin")
def merge(context: Context, request: MergeAdapter) -> Run:
    """Merge an adapter into its base: a base of its own, with no adapter beside it, in the Hub's layout.

    The sum is made in float32 and rounded once to the type the base is stored in. A DoRA, which cannot be served
    beside a base, can be served so.

    Example:
        espalier adapter merge support@production --out ./support-merged
    """
    from espalier.services.execution import execute_step
    from espalier.services.steps.adapter_merge import AdapterMergeSpec

    out = _check_new(context.place(request.out)) if request.out else None
    reference = _resolve(context, request.adapter)
    spec = AdapterMergeSpec(base=_base_of(context, reference, request.base))
    run = execute_step(
        context, "adapter.merge", spec, name=request.adapter, folder=context.start, inputs={"adapter": reference}
    )
    if out is not None:
        _lay_out(context, run.outputs["merge.base"], out)
    return run


class CombineAdapters(Spec):
    """Which adapters, and how they become one."""

    adapters: tuple[str, ...] = Field(min_length=2, description=f"{_NAMED}; two or more of one base")
    how: Combination = Field("cat", description="cat: the exact sum; svd: its best of `rank`; the others as PEFT's")
    weight: tuple[float, ...] = Field((), description="how much of each, in order; none = equal shares")
    density: float = Field(0.5, gt=0, le=1, description="ties, dare: the share of numbers kept")
    rank: int = Field(0, ge=0, description="svd: rank of the result; 0 = the largest of the adapters'")
    seed: int = Field(0, ge=0, description="dare: what it drops")
    base: str = Field("", description="where their base is now; empty = where the first's was in training")


@operation("adapters.combine", "POST /v1/adapters/combine", shape="job", positional=("adapters",), role="admin")
def combine(context: Context, request: CombineAdapters) -> Run:
    """Combine several adapters of one base into one adapter: their sum, TIES, DARE and others. Needs `[peft]`.

    Example:
        espalier adapter combine support@v3 billing@v1 --how ties --weight 1 --weight 0.6
    """
    from espalier.core.errors import InvalidInput
    from espalier.nn.combination import CombineSpec
    from espalier.services.execution import execute_step
    from espalier.services.steps.adapter_combine import AdapterCombineSpec

    if request.weight and len(request.weight) != len(request.adapters):
        raise InvalidInput(f"{len(request.weight)} weights for {len(request.adapters)} adapters", hint="one for each")
    references = [_resolve(context, adapter) for adapter in request.adapters]
    names = [f"{number:02d}" for number in range(1, len(references) + 1)]
    spec = AdapterCombineSpec(
        base=_base_of(context, references[0], request.base),
        combine=CombineSpec(how=request.how, density=request.density, rank=request.rank, seed=request.seed),
        shares=dict(zip(names, request.weight, strict=True)) if request.weight else {},
    )
    inputs = {f"adapter.{name}": reference for name, reference in zip(names, references, strict=True)}
    return execute_step(context, "adapter.combine", spec, name=request.how, folder=context.start, inputs=inputs)


def _resolve(context: Context, text: str) -> str:
    """`sha256:DIGEST` of the adapter that `text` names. Raises InvalidInput, NotFound."""
    from espalier.core.errors import InvalidInput
    from espalier.core.refs import Ref
    from espalier.services.execution import resolve_artifact

    if text.startswith("sha256:"):
        digest = text.removeprefix("sha256:")
    elif text.startswith("run_"):
        digest = _made_by(context, text)
    elif "/" in text or context.place(text).is_dir():
        raise InvalidInput(
            f"{text} is a folder, not an adapter of this workspace",
            hint=f"`espalier adapter import {text} --base ...` makes it one",
        )
    else:
        digest = resolve_artifact(context, str(Ref.parse(text, kind="model")))
    found = context.store.artifacts.get(digest)
    if found.kind != "adapter":
        raise InvalidInput(f"artifact {digest[:12]} is a {found.kind}, not an adapter")
    return f"sha256:{digest}"


def _made_by(context: Context, run_id: str) -> str:
    from espalier.core.errors import InvalidInput

    outputs = set(context.store.runs.get(run_id).outputs.values())
    made = [digest for digest in sorted(outputs) if context.store.artifacts.get(digest).kind == "adapter"]
    if len(made) != 1:
        raise InvalidInput(
            f"{run_id} made {len(made) or 'no'} adapter{'s' if made else ''}",
            hint="write sha256:DIGEST of the one you mean: `espalier runs show` lists them",
        )
    return made[0]


def _find_folder(context: Context, text: str) -> Path:
    if not text.startswith(("sha256:", "run_")) and context.place(text).is_dir():
        return context.place(text)
    return context.store.artifacts.materialise(_resolve(context, text).removeprefix("sha256:"))


def _base_of(context: Context, reference: str, given: str) -> str:
    from espalier.registry.versions import read_adapter_facts

    artifact = context.store.artifacts.get(reference.removeprefix("sha256:"))
    return given or read_adapter_facts(context.store, artifact).base


def _check_new(folder: Path) -> Path:
    from espalier.core.errors import Conflict

    if folder.exists():
        raise Conflict(f"{folder} exists", hint="name a folder that does not exist yet")
    return folder


def _lay_out(context: Context, digest: str, folder: Path) -> None:
    """A copy of an artifact for the user to keep; whole or not at all."""
    import shutil

    from espalier.core.ids import make_id
    from espalier.store.disk import storage_errors

    source = context.store.artifacts.materialise(digest)
    arriving = folder.parent / f".{make_id('tmp')}"
    try:
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, arriving, copy_function=shutil.copyfile)  # the store's files are read-only
            arriving.rename(folder)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
