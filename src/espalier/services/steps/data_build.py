"""Step `data.build`: a folder of files as an immutable dataset version."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.data.spec import DataSpec


def _source_files(spec: DataSpec, folder: Path) -> Iterable[Path]:
    from espalier.data.readers.source import list_files

    root = folder / spec.source.path
    home = root if root.is_dir() else root.parent
    named = (home / name for name in spec.named_files)
    return {
        *list_files(root, spec.source.include, spec.source.exclude),
        *(path for path in named if path.is_file()),
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
