"""`SourceSpec`: what a person writes to say which sources are read, and what is done about what is wrong with them.

Knows types and defaults; does nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier.core.types import Spec
from espalier.data.readers.options import ReadOptions
from espalier.data.readers.problem import ProblemPolicy


class SourceSpec(Spec):
    """Which sources are read."""

    path: str | tuple[str, ...] = Field(
        "",
        description="one or several of: file, folder, glob, archive, s3://bucket/prefix, http(s)://..., urls:FILE "
        "(a URL a line), hf:OWNER/NAME[@REVISION]; local ones relative to the recipe. Empty when a step hands one over",
    )
    include: tuple[str, ...] = Field(("*",), description="patterns on the path below the folder; * matches slashes too")
    exclude: tuple[str, ...] = Field((), description="patterns to leave out; the labels and names files always are")
    on_error: Literal["skip", "fail"] = Field(
        "skip", description="fail: every problem whose policy is `skip` stops the build instead"
    )
    problems: ProblemPolicy = Field(ProblemPolicy(), description="what is done about each kind of problem")
    text: str = Field("", description="the column of a table that is the text; by default `text`, else all columns")
    id: str = Field("", description="the column that holds a row's own id: it must be one row's only")
    readers: dict[str, str] = Field({}, description="suffix -> engine to read it with, as {pdf: docling}")
    max_file_bytes: int = Field(64 << 20, ge=1, description="larger documents are skipped; tables have no such limit")
    max_line_bytes: int = Field(16 << 20, ge=1, description="longer lines of a table are skipped, never held in memory")
    max_tags: int = Field(32, ge=0, description="columns of a table that become tags, the first ones")
    max_ratio: float = Field(200.0, gt=1, description="what unpacks to more than so many times its size is refused")
    max_seconds: float = Field(60.0, gt=0, description="for reading one document")
    max_memory_mib: int = Field(2048, ge=128, description="for reading one document")
    allow_private: bool = Field(False, description="let http(s) sources lie on this machine or in a private network")
    max_download_bytes: int = Field(16 << 30, ge=1, description="of one remote file")

    @property
    def paths(self) -> tuple[str, ...]:
        """The places, as a list even where there is one."""
        return (self.path,) if isinstance(self.path, str) else self.path

    def options(self, *, keep_rows: bool = False) -> ReadOptions:
        """What readers are told. `keep_rows`: tables give their rows as JSON, for a task that maps columns."""
        policy: dict[str, str] = self.problems.model_dump()
        if self.on_error == "fail":
            policy = {kind: "refuse" if action == "skip" else action for kind, action in policy.items()}
        return ReadOptions(
            text=self.text,
            id=self.id,
            keep_rows=keep_rows,
            max_line_bytes=self.max_line_bytes,
            max_tags=self.max_tags,
            max_ratio=self.max_ratio,
            max_memory_bytes=self.max_memory_mib << 20,
            max_seconds=self.max_seconds,
            engines=tuple(sorted(self.readers.items())),
            problems=policy,
        )
