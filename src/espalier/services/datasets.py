"""Datasets: build a version from files, list and show versions, and a made-up folder to try it all on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from espalier.core.errors import Conflict
from espalier.core.operations import operation
from espalier.core.types import Run, Spec
from espalier.core.types.examples import Split
from espalier.services.catalogue import (
    DatasetVersion,
    find_dataset,
    list_dataset_names,
    list_dataset_versions,
)

if TYPE_CHECKING:
    from espalier.services.context import Context


class BuildDataset(Spec):
    """Which recipe to build."""

    recipe: str = Field(description="YAML file of a dataset: source, steps, task, split (see `config schema data`)")


@operation("datasets.build", "POST /v1/datasets/build", shape="job", positional=("recipe",), role="admin")
def build(context: Context, request: BuildDataset) -> Run:
    """Build a dataset version from the files a recipe names.

    Nothing is read twice: the same files and recipe are the same version, found in milliseconds. What was dropped, and
    why, `espalier data exclusions` lists.

    Example:
        espalier data build dataset.yaml
    """
    from espalier.core.recipefile import load_recipe
    from espalier.data.spec import DataSpec
    from espalier.services.execution import execute_step
    from espalier.services.taskprompts import fill_prompts
    from espalier.services.versionfolders import place_versions

    path = context.place(request.recipe)
    spec = load_recipe(path, DataSpec)
    spec = spec.model_copy(update={"task": fill_prompts(context.store, spec.task)})
    spec = place_versions(context.store, spec, path.parent)
    return execute_step(context, "data.build", spec, name=spec.name, folder=path.parent)


class ListDatasets(Spec):
    """Which datasets to list."""

    name: str = Field("", description="all versions of this dataset; empty = the newest version of each")


@operation("datasets.list", "GET /v1/datasets")
def list_datasets(context: Context, request: ListDatasets) -> list[DatasetVersion]:
    """List datasets, or every version of one."""
    store = context.store
    if request.name:
        return list(list_dataset_versions(store, request.name))
    return [find_dataset(store, name) for name in list_dataset_names(store)]


class ShowDataset(Spec):
    """Which version to show, and how much of it."""

    ref: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    examples: int = Field(1, ge=0, le=100, description="show so many examples")
    split: Split = Field("train", description="from this split")
    stats: bool = Field(False, description="also read every row: lengths by split and part, likeness, repetition")
    base: str = Field("builtin:seedling", description="with --stats: count tokens as this base does")


class DatasetView(Spec):
    """A version, its manifest, and some of its examples."""

    version: DatasetVersion
    manifest: dict[str, Any]
    examples: tuple[dict[str, Any], ...]
    stats: dict[str, Any] | None = None

    def to_text(self) -> str:
        """The manifest as aligned tables, then the examples as conversations."""
        from espalier.data.card import write_stats, write_summary
        from espalier.data.manifest import DatasetManifest
        from espalier.data.stats import DatasetStats

        version = self.version
        head = f"dataset:{version.name}@v{version.version}  {version.digest[:12]}"
        shown = [f"Example {example['id']} ({example['split']})\n{_converse(example)}" for example in self.examples]
        told = [head, write_summary(DatasetManifest.model_validate(self.manifest))]
        if self.stats:
            told.append(write_stats(DatasetStats.model_validate(self.stats)))
        return "\n\n".join([*told, *shown])


@operation("datasets.show", "GET /v1/datasets/show", positional=("ref",))
def show(context: Context, request: ShowDataset) -> DatasetView:
    """Show a dataset version: counts, drops by reason, redactions, labels, lengths, and examples.

    Example:
        espalier data show support --examples 2 --split test
    """
    from dataclasses import asdict

    from espalier.data.manifest import read_manifest
    from espalier.store.examples import read_examples

    version = find_dataset(context.store, request.ref)
    folder = context.store.artifacts.materialise(version.digest)
    manifest = read_manifest(folder).model_dump(mode="json")
    shown = islice(read_examples(folder, request.split), request.examples)
    stats = _measure(context, folder, request.base) if request.stats else None
    return DatasetView(version=version, manifest=manifest, examples=tuple(map(asdict, shown)), stats=stats)


def _measure(context: Context, folder: Path, base: str) -> dict[str, Any]:
    from espalier.data.stats import describe_dataset
    from espalier.nn.locate import locate_base
    from espalier.tokens.tokenizer import load_tokenizer

    if base.startswith("path:"):
        base = f"path:{context.place(base.removeprefix('path:'))}"
    tokenizer = load_tokenizer(locate_base(base, fetch=not context.confined))
    stats = describe_dataset(folder, lambda text: len(tokenizer.encode(text)))
    return stats.model_dump(mode="json")


def _converse(example: dict[str, Any]) -> str:
    turns = [f"[{turn['role']}]\n{turn['content']}" for turn in example["messages"]]
    return "\n".join(turns) or str(example["text"])


class SampleFolder(Spec):
    """Where to write the made-up company's folder."""

    folder: str = Field("support", description="folder to make; it must not exist, or be empty")
    seed: int = Field(7, ge=0, description="another seed is another company's year")
    files: int = Field(300, ge=10, le=100_000, description="about so many documents")


class SampleWritten(Spec):
    """What was written, and what to run next."""

    folder: str
    files: int
    tickets: int
    recipe: str


@operation("datasets.sample", "POST /v1/datasets/sample", positional=("folder",), role="admin")
def sample(context: Context, request: SampleFolder) -> SampleWritten:
    """Write a made-up company's support tickets (PDF, DOCX, HTML, mail, CSV, Markdown) and a recipe, to try things on.

    Example:
        espalier data sample support && espalier run support/support.yaml
    """
    folder = context.place(request.folder)
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty", hint="name a new folder: nothing is overwritten")
    return write_sample(folder, request.seed, request.files)


def write_sample(folder: Path, seed: int, files: int) -> SampleWritten:
    """The folder and its recipe, the same bytes for the same seed; files already there are overwritten."""
    import importlib.resources

    from espalier.data.synth.tickets.folder import write_tickets

    written = write_tickets(folder, seed=seed, files=files)
    recipe = importlib.resources.files("espalier.recipes").joinpath("support.yaml")
    (folder / "support.yaml").write_bytes(recipe.read_bytes())
    return SampleWritten(
        folder=str(folder), files=written.files, tickets=len(written.tickets), recipe=str(folder / "support.yaml")
    )
