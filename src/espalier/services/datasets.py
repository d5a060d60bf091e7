"""Datasets: build a version from files, list and show versions, and a made-up folder to try it all on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from espalier.core.errors import Conflict, NotFound
from espalier.core.operations import operation
from espalier.core.types import Run, Spec
from espalier.core.types.examples import Example, Split
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
    spec = load_recipe(path, DataSpec, mistaken=_is_pipeline)
    spec = spec.model_copy(update={"task": fill_prompts(context.store, spec.task)})
    spec = place_versions(context.store, spec, path.parent)
    return execute_step(context, "data.build", spec, name=spec.name, folder=path.parent)


def _is_pipeline(data: Any) -> str:
    steps = data.get("steps") if isinstance(data, dict) else None
    return "this is a pipeline: `espalier run` runs it" if isinstance(steps, dict) else ""


class ListDatasets(Spec):
    """Which datasets to list."""

    name: str = Field("", description="all versions of this dataset; empty = the newest version of each")


@operation("datasets.list", "GET /v1/datasets", positional=("name",))
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
    id: str = Field("", description="show this example, wherever it stands, in place of the first ones")
    stats: bool = Field(False, description="also read every row: lengths by split and part, likeness, repetition")
    base: str = Field("builtin:seedling", description="with --stats: count tokens as this base does")


class DatasetView(Spec):
    """A version, its manifest, and some of its examples."""

    version: DatasetVersion
    manifest: dict[str, Any]
    examples: tuple[dict[str, Any], ...]  # each with `sources`: the stretches of files it was made from
    stats: dict[str, Any] | None = None

    def to_text(self) -> str:
        """The manifest as aligned tables, then the examples as conversations."""
        from espalier.data.card import write_stats, write_summary
        from espalier.data.manifest import DatasetManifest
        from espalier.data.stats import DatasetStats

        version = self.version
        head = f"dataset:{version.name}@v{version.version}  {version.digest[:12]}"
        shown = [_tell_example(example) for example in self.examples]
        told = [head, write_summary(DatasetManifest.model_validate(self.manifest))]
        if self.stats:
            told.append(write_stats(DatasetStats.model_validate(self.stats)))
        return "\n\n".join([*told, *shown])


@operation("datasets.show", "GET /v1/datasets/show", positional=("ref",))
def show(context: Context, request: ShowDataset) -> DatasetView:
    """Show a dataset version: counts, drops by reason, redactions, labels, lengths, and examples with their sources.

    Example:
        espalier data show support --examples 2 --split test
    """
    from espalier.data.manifest import read_manifest

    version = find_dataset(context.store, request.ref)
    folder = context.store.artifacts.materialise(version.digest)
    manifest = read_manifest(folder).model_dump(mode="json")
    shown = tuple(_choose(folder, request))
    stats = _measure(context, folder, request.base) if request.stats else None
    return DatasetView(version=version, manifest=manifest, examples=tuple(_with_sources(folder, shown)), stats=stats)


def _choose(folder: Path, request: ShowDataset) -> Iterator[Example]:
    from espalier.store.examples import read_examples

    if not request.id:
        yield from islice(read_examples(folder, request.split), request.examples)
        return
    found = next((example for example in read_examples(folder) if example.id == request.id), None)
    if found is None:
        raise NotFound(
            f"no example {request.id!r} in {request.ref}", hint="`espalier data exclusions` lists what was left out"
        )
    yield found


def _with_sources(folder: Path, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    """Each example with the file, page and characters it was made from, and the licence its source carries."""
    from espalier.data.layout import read_documents

    wanted = {id for example in examples for id in example.documents}
    try:
        documents = {document.id: document for document in read_documents(folder, wanted)} if wanted else {}
    except NotFound:  # a version made elsewhere may hold examples alone
        documents = {}
    for example in examples:
        known = [documents[id] for id in example.documents if id in documents]
        sources = [
            {**asdict(span), "licence": document.tags.get("licence", "")}
            for document in known
            for span in (document.span, *document.continued)
        ]
        yield {**asdict(example), "sources": sources}


def _measure(context: Context, folder: Path, base: str) -> dict[str, Any]:
    from espalier.data.stats import describe_dataset
    from espalier.nn.locate import locate_base
    from espalier.tokens.tokenizer import load_tokenizer

    if base.startswith("path:"):
        base = f"path:{context.place(base.removeprefix('path:'))}"
    tokenizer = load_tokenizer(locate_base(base, fetch=not context.confined))
    stats = describe_dataset(folder, lambda text: len(tokenizer.encode(text)))
    return stats.model_dump(mode="json")


def _tell_example(example: dict[str, Any]) -> str:
    places = []
    for source in example.get("sources", ()):
        place = f"{source['uri']}, page {source['page']}, characters {source['start']}-{source['end']}"
        places.append(f"from {place}" + (f", {source['licence']}" if source["licence"] else ""))
    return "\n".join([f"Example {example['id']} ({example['split']})", *places, _converse(example)])


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
