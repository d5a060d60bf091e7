"""Step `adapter.import`: another trainer's adapter, checked against its base."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from espalier.core.events import Event
from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.nn.importspec import ImportSpec
from espalier.nn.locate import anchor_base, list_base_files


class AdapterImportSpec(ImportSpec):
    """What to import, and for which base."""

    source: str = Field(description="folder of an adapter (PEFT, MLX), or a file of its weights (loralib)")
    base: str = Field("builtin:seedling", description="the base it was trained on: builtin:NAME, path:DIR, hf:NAME")


def _list_files(spec: AdapterImportSpec, folder: Path) -> Iterable[Path]:
    source = folder / spec.source
    own = [source] if source.is_file() else [path for path in sorted(source.glob("*")) if path.is_file()]
    return [*own, *list_base_files(anchor_base(spec.base, folder))]


@step(
    "adapter.import",
    version=1,
    spec=AdapterImportSpec,
    inputs={},
    outputs={"adapter": "adapter"},
    files=_list_files,
)
def adapter_import(context: StepContext, spec: AdapterImportSpec) -> None:
    """Import an adapter of another trainer, or refuse it with the reason."""
    from espalier.nn.base import outline_base
    from espalier.nn.importing import import_adapter

    base = outline_base(spec.base)
    options = ImportSpec(alpha=spec.alpha, enabled=spec.enabled)
    found = import_adapter(Path(spec.source), base, context.output("adapter"), options)
    for note in found.notes:
        context.emit(Event("log", {"message": f"    not checked: {note}"}))
    context.metric("layers", len(found.adapter.layers))
    context.metric("parameters", found.adapter.parameters)
    context.describe("adapter", base=spec.base, base_digest=base.base_digest, method=f"import:{found.format}")
