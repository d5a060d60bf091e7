from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from espalier.core.config import PolicyConfig
from espalier.core.types import EvalReport, ModelVersion, Score
from espalier.registry.approvals import approve
from espalier.registry.versions import Registration, register
from espalier.store.store import Store, open_store
from espalier.store.workspace import init_workspace

BASE = "b" * 64
POLICY = PolicyConfig()


@dataclass
class Maker:
    """Makes what a version stands on, in a real store."""

    store: Store
    folder: Path

    def artifact(self, kind: str, **files: str) -> str:
        place = self.folder / f"{kind}-{len(list(self.folder.iterdir()))}"
        place.mkdir()
        for name, text in files.items():
            (place / name.replace("_json", ".json").replace("_bin", ".safetensors")).write_text(text, "utf-8")
        return self.store.artifacts.put(kind, place).digest

    def adapter(self, base: str = BASE, weights: str = "w") -> str:
        facts = {"base": "builtin:seedling", "base_digest": base, "special_tokens": {}, "recipe": ""}
        return self.artifact("adapter", espalier_json=json.dumps(facts), adapter_model_bin=weights)

    def dataset(self, **facts: object) -> str:
        return self.artifact("dataset", manifest_json=json.dumps({"name": "tickets", **facts}))

    def report(self, subject: str, split: str = "test", n: int = 60, value: float = 0.95) -> str:
        score = Score(name="xml_valid", value=value, n=n, ci_low=value - 0.05, ci_high=min(1, value + 0.03))
        part = Score(name="xml_fields/t/a", value=1, n=2, ci_low=0, ci_high=1)
        report = EvalReport(subject=subject, label="tuned", dataset="d" * 64, split=split, scores=(score, part))
        return self.artifact("report", report_json=report.model_dump_json())

    def registration(self, name: str = "support", **changes: object) -> Registration:
        adapter = str(changes.pop("adapter", None) or self.adapter())
        fields = {
            "name": name, "base": "builtin:seedling", "base_digest": BASE, "adapter": adapter,
            "dataset": self.dataset(), "reports": (self.report(f"adapter:{adapter}"),),
        }  # fmt: skip
        return Registration.model_validate(fields | changes)

    def version(self, weights: str = "w", **changes: object) -> ModelVersion:
        return register(self.store, self.registration(adapter=self.adapter(weights=weights), **changes), actor="ann")

    def approved(self, weights: str) -> ModelVersion:
        return approve(self.store, POLICY, self.version(weights).ref, actor="bob")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(init_workspace(tmp_path / "workspace"))
    yield opened
    opened.close()


@pytest.fixture
def make(store: Store, tmp_path: Path) -> Maker:
    folder = tmp_path / "made"
    folder.mkdir()
    return Maker(store, folder)


@pytest.fixture
def make_in() -> Callable[[Path], Maker]:
    def open_in(root: Path) -> Maker:
        (root / "made").mkdir()
        return Maker(open_store(init_workspace(root / "workspace")), root / "made")

    return open_in
