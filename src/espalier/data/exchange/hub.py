"""The README.md of a Hugging Face dataset folder: YAML that says which files are which split, and a card for people.

Spec: https://huggingface.co/docs/hub/datasets-cards and .../datasets-manual-configuration
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.data.formats.format import find_format
from espalier.data.manifest import FILE
from espalier.store.disk import write_file

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)
# Those of the Hub's own names for licences that SPDX has too, in lower case.
_LICENCES = frozenset(
    (
        *("apache-2.0", "mit", "bsd-3-clause", "gpl-3.0", "unlicense", "pddl", "odc-by", "cc0-1.0"),
        *("cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
    )
)


def write_hub_card(folder: Path, out: Path, name: str, splits: Mapping[str, int]) -> None:
    """README.md in `out` for the data files beside it. What the dataset's manifest says of it is carried along."""
    said = _read_manifest(folder)
    buffer = io.StringIO()
    _yaml().dump(_front_matter(said, out, splits), buffer)
    write_file(out / "README.md", f"---\n{buffer.getvalue()}---\n\n{_body(said, name, splits)}".encode())


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    said: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    return said


def _front_matter(said: Mapping[str, Any], out: Path, splits: Mapping[str, int]) -> dict[str, Any]:
    licence = str(said.get("licence", "")).strip()
    named = [name.lower() for name in licence.split(" AND ")]
    known = set(named) <= _LICENCES
    total = sum(splits.values())
    matter: dict[str, Any] = {"pretty_name": said.get("name", "dataset")}
    if licence:
        matter["license"] = "other" if not known else named[0] if len(named) == 1 else named
        if not known:
            matter["license_name"] = licence
    matter["size_categories"] = [next((label for most, label in _SIZES if total < most), "100M<n<1B")]
    files = {split: f"data/{split}-00000-of-00001.parquet" for split in splits}
    matter["configs"] = [
        {
            "config_name": "default",
            "data_files": [{"split": split, "path": path} for split, path in files.items()],
        }
    ]
    matter["dataset_info"] = {
        "splits": [
            {"name": split, "num_bytes": (out / files[split]).stat().st_size, "num_examples": count}
            for split, count in splits.items()
        ]
    }
    return matter


def _body(said: Mapping[str, Any], name: str, splits: Mapping[str, int]) -> str:
    shape = find_format(name)
    told = ", ".join(f"{count} {split}" for split, count in splits.items())
    parts = [
        f"# {said.get('name', 'dataset')}",
        said.get("description", ""),
        f"{told} examples. Rows are {shape.title}: <{shape.url}>",
        f"Licence: {said['licence']}" if said.get("licence") else "",
        *(f"- {place}: {_attribute(licence)}" for place, licence in sorted(said.get("licences", {}).items())),
        "Made with Espalier; the dataset version's own manifest says which files and steps it was made from.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _attribute(licence: Mapping[str, str]) -> str:
    return "; ".join(licence[name] for name in ("statement", "attribution") if licence.get(name))


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    return yaml
