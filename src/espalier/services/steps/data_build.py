"""Step `data.build`: sources of any kind as an immutable dataset version."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.data.spec import DataSpec

# A step may name an environment variable where a file would lay a secret open: `salt: env:NAME`.
_VARIABLE = "env:"


def _source_files(spec: DataSpec, folder: Path) -> Iterable[Path]:
    from espalier.data.readers.licence import list_terms
    from espalier.data.readers.places import list_folders, list_local_files

    home = spec.home(folder)
    named = [home / name for name in (*spec.named_files, *spec.leaks.against) if not name.startswith(_VARIABLE)]
    named += [folder / spec.tokenizer] if spec.tokenizer else []
    inside = (file for path in named for file in ([path] if path.is_file() else sorted(path.rglob("*"))))
    # What says of the sources' licence goes into the manifest, whatever the patterns choose.
    terms = (file for root in list_folders(spec.source, folder) for file in list_terms(root))
    return {*list_local_files(spec.source, folder), *(path for path in inside if path.is_file()), *terms}


def _variables(spec: DataSpec) -> Iterable[str]:
    return (name.removeprefix(_VARIABLE) for name in spec.named_files if name.startswith(_VARIABLE))


def _remote_places(spec: DataSpec) -> str:
    return ", ".join(path for path in spec.source.paths if "://" in path or path.startswith(("urls:", "hf:")))


@step(
    "data.build",
    version=2,
    spec=DataSpec,
    inputs={"previous": "dataset?"},
    outputs={"dataset": "dataset"},
    files=_source_files,
    env=_variables,
    outside=_remote_places,
)
def data_build(context: StepContext, spec: DataSpec) -> None:
    """Read, clean, redact, deduplicate and split sources into a dataset version.

    With the input `previous` what an earlier version held out stays held out.
    """
    from espalier.data.build import build_dataset
    from espalier.data.layout import read_assignments

    previous = read_assignments(context.input("previous")) if "previous" in context.inputs else None
    manifest = build_dataset(
        spec, context.output("dataset"), cache=context.cache / "data", previous=previous, emit=context.emit
    )
    context.metric("examples", manifest.examples)
    for split, count in manifest.splits.items():
        context.metric(split, count)
    context.describe("dataset", name=spec.name)
