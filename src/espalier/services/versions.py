"""Versions of datasets against each other, names of one's own for them, and what was left out of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Spec
from espalier.data.comparison import DatasetDiff
from espalier.services.catalogue import DatasetVersion, find_dataset, tag_dataset

if TYPE_CHECKING:
    from espalier.services.context import Context


class DiffDatasets(Spec):
    """Which two versions to compare."""

    before: str = Field(description="dataset:NAME@vN, NAME@TAG, or NAME for its newest version")
    after: str = Field(description="the same, of the version it is compared with")
    rows: int = Field(5, ge=0, le=1000, description="show so many added, removed and changed rows")


@operation("datasets.diff", "GET /v1/datasets/diff", positional=("before", "after"))
def diff(context: Context, request: DiffDatasets) -> DatasetDiff:
    """Compare two versions: rows added, removed, changed, moved between splits; what is spread otherwise; the recipes.

    Example:
        espalier data diff support@v1 support@v2
    """
    from espalier.data.diff import compare_datasets

    store = context.store
    before, after = find_dataset(store, request.before), find_dataset(store, request.after)
    folders = [store.artifacts.materialise(version.digest) for version in (before, after)]
    found = compare_datasets(*folders, shown=request.rows)
    return found.model_copy(update={"before": before.ref, "after": after.ref})


class TagDataset(Spec):
    """Which version to name, and how."""

    ref: str = Field(description="dataset:NAME@vN")
    tag: str = Field(description="a word such as golden; it may be moved to another version later")
    expect: str = Field("", description="where the tag must stand now (v2), so that nobody else's move is lost")


@operation("datasets.tag", "POST /v1/datasets/tag", positional=("ref", "tag"), role="admin")
def tag(context: Context, request: TagDataset) -> DatasetVersion:
    """Point a tag at a version; `dataset:NAME@TAG` then names it everywhere.

    Example:
        espalier data tag support@v3 golden
    """
    return tag_dataset(context.store, request.ref, request.tag, context.actor, expect=request.expect)


class ListExclusions(Spec):
    """What to list of what a version left out."""

    ref: str = Field(description="dataset:NAME@vN, or just NAME for its newest version")
    reason: str = Field("", description="only reasons that begin so, e.g. 'near duplicate'")
    step: str = Field("", description="only what this step left out, e.g. dedup")
    limit: int = Field(20, ge=1, le=10_000, description="at most so many")


class Exclusion(Spec):
    """One thing that was left out, where it stands, and its text as it was then."""

    id: str = ""
    uri: str
    page: int = 1
    step: str
    reason: str
    text: str = ""


class Exclusions(Spec):
    """The first of those asked for, and how many there are."""

    total: int
    rows: tuple[Exclusion, ...]

    def to_text(self) -> str:
        """For a terminal: a line each."""
        lines = [f"{row.uri} {row.id} [{row.step}] {row.reason}".replace("  ", " ") for row in self.rows]
        return "\n".join([f"{self.total} left out" + (f", the first {len(lines)}:" if lines else ""), *lines])


@operation("datasets.exclusions", "GET /v1/datasets/exclusions", positional=("ref",))
def exclusions(context: Context, request: ListExclusions) -> Exclusions:
    """List what a version left out, and why.

    Example:
        espalier data exclusions support --reason "near duplicate"
    """
    from espalier.data.layout import read_exclusions

    store = context.store
    folder = store.artifacts.materialise(find_dataset(store, request.ref).digest)
    rows: list[Exclusion] = []
    total = 0
    for row in read_exclusions(folder):
        if row["reason"].startswith(request.reason) and row["step"].startswith(request.step):
            total += 1
            if len(rows) < request.limit:
                said = {name: row[name] for name in Exclusion.model_fields if row.get(name) is not None}
                rows.append(Exclusion.model_validate(said))
    return Exclusions(total=total, rows=tuple(rows))
