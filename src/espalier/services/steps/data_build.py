"""Step `data.build`: a folder of files as an immutable dataset version."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.data.spec import DataSpec


def _source_files(spec: DataSpec) -> Iterable[Path]:
    from espalier.data.readers.reading import known_suffixes
    from espalier.data.readers.source import find_sources

    root = Path(spec.source.path)
    sources, _ = find_sources(
        root,
        suffixes=known_suffixes(),
        include=spec.source.include,
        exclude=spec.source.exclude,
        max_file_bytes=spec.source.max_file_bytes,
    )
    folder = root if root.is_dir() else root.parent
    named = [getattr(spec.task, "labels", ""), *(getattr(each, "names", "") for each in spec.steps)]
    return {
        *(source.path for source in sources),
        *(folder / name for name in named if name and (folder / name).is_file()),
    }


@step("data.build", version=1, spec=DataSpec, outputs={"dataset": "dataset"}, files=_source_files)
def data_build(context: StepContext, spec: DataSpec) -> None:
    """Read, clean, redact, deduplicate and split a folder of files into a dataset version."""
    from espalier.data.build import build_dataset

    manifest = build_dataset(spec, context.output("dataset"), emit=context.emit)
    context.metric("examples", manifest.examples)
    for split, count in manifest.splits.items():
        context.metric(split, count)
    context.describe("dataset", name=spec.name)
