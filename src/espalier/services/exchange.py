"""Datasets and the rest of the world: what a file holds, a version as other tools' files, a check before an upload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field

from espalier.core.errors import GateFailed, NotFound, PermissionDenied
from espalier.core.operations import operation
from espalier.core.types import Spec
from espalier.core.types.examples import Split
from espalier.data.conformance.report import CheckReport
from espalier.data.exchange.report import ExportReport, Inspection
from espalier.services.catalogue import find_dataset

if TYPE_CHECKING:
    from espalier.services.context import Context


class InspectSource(Spec):
    """What to look at."""

    path: str = Field(
        description="a file of rows (JSON lines, JSON, CSV, Parquet, compressed or not), or a folder of them"
    )


@operation("datasets.inspect", "POST /v1/datasets/inspect", positional=("path",), role="admin")
def inspect(context: Context, request: InspectSource) -> Inspection:
    """Tell of which format a file's rows are, with what confidence and why, and the recipe that reads it.

    Rows of no one format are refused with the candidates.

    Example:
        espalier data inspect chats.jsonl
    """
    from espalier.data.exchange.inspect import inspect_source

    return inspect_source(context.place(request.path))


class ExportDataset(Spec):
    """Which version to write, as what, and where."""

    ref: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    out: str = Field(description="folder to make, or s3://bucket/prefix; it must not exist, or be empty")
    format: str = Field("", description="shape of the rows, see docs/formats.md; empty = by what the examples are")
    container: Literal["jsonl", "csv", "parquet", "hf"] = Field(
        "jsonl", description="kind of file; hf = a Hugging Face dataset folder"
    )
    splits: tuple[Split, ...] = Field(("train", "validation", "test"), description="only these splits")


@operation("datasets.export", "POST /v1/datasets/export", positional=("ref", "out"), role="admin")
def export(context: Context, request: ExportDataset) -> ExportReport:
    """Write a dataset version as files other tools read; what the format cannot hold is listed in refused.jsonl.

    Example:
        espalier data export support out --format bedrock-conversation
    """
    from espalier.data.exchange.export import export_dataset
    from espalier.data.exchange.upload import SCHEME, export_to_bucket

    def write(out: Path) -> ExportReport:
        return export_dataset(folder, out, format=request.format, container=request.container, splits=request.splits)

    if not request.out.startswith(SCHEME):
        out = context.place(request.out)
        folder = _locate(context, request.ref)
        return write(out)
    if context.confined:  # the bucket would be the caller's, the credentials this machine's
        raise PermissionDenied(f"{request.out} lies outside the workspace", hint="export on that machine")
    folder = _locate(context, request.ref)
    return export_to_bucket(request.out, context.workspace.scratch_folder("exports"), write)


class CheckDataset(Spec):
    """What to check, and for whom."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    source: str = Field(description="a dataset (NAME or dataset:NAME@vN), a .jsonl file, or a folder of them")
    for_: str = Field(alias="for", description="bedrock:nova, bedrock:titan, openai:gpt-4o-mini ... (docs/formats.md)")
    personal: bool = Field(True, description="also look for personal data and secrets, which an upload hands over")
    strict: bool = Field(False, description="fail (exit 5) when it would be refused")


@operation("datasets.check", "POST /v1/datasets/check", positional=("source",), role="admin")
def check(context: Context, request: CheckDataset) -> CheckReport:
    """Check a dataset against the limits a fine-tuning service publishes: rows, roles, words, lengths, numbers, sizes.

    Nothing is sent anywhere.

    Example:
        espalier data check train.jsonl --for bedrock:nova
    """
    from espalier.data.conformance.check import check_dataset

    path = context.place(request.source)
    found = path if path.exists() else _locate(context, request.source)
    report = check_dataset(found, request.for_, personal=request.personal)
    if request.strict and not report.accepted:
        raise GateFailed(report.to_text(), hint="mend the errors; the warnings may stay")
    return report


def _locate(context: Context, ref: str) -> Path:
    """The folder of a dataset version. Raises NotFound, also where there is no workspace to look in."""
    try:
        store = context.store
    except NotFound as error:
        raise NotFound(f"no file or folder {ref}, and {error.message}", hint=error.hint) from None
    return store.artifacts.materialise(find_dataset(store, ref).digest)
