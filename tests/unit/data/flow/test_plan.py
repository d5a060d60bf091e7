"""What a step's key holds."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path

from espalier.data.flow import plan

# Imported by the data stage, and unable to change what is computed: they fetch, check types or measure processes.
_NEUTRAL = {
    "pydantic",
    "pydantic-core",
    "huggingface_hub",
    "boto3",
    "botocore",
    "ray",
    "psutil",
    "aiohttp",
    "ruamel.yaml",
    "click",
}


def list_imports() -> set[str]:
    """Top-level names of what the code that is in every key imports from outside."""
    found: set[str] = set()
    for package in ("data", "tokens", "core"):
        for path in (Path(str(files("espalier"))) / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"espalier"}


def test_every_library_that_computes_is_in_the_keys() -> None:
    distributions = packages_distributions()
    known = {name.lower().replace("_", "-") for name in (*plan._LIBRARIES, *_NEUTRAL)}
    missing = {
        name
        for name in list_imports()
        if name in distributions and not known & {each.lower().replace("_", "-") for each in distributions[name]}
    }
    assert not missing
