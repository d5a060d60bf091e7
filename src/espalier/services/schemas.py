"""JSON Schemas of what people write in YAML, made from the same types that read it.

In a recipe a value may be `${parameters.NAME}` wherever a number or a list is wanted, and a step's `with` has the
keys of that step; both are told to the editor here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from espalier.core.config import Config
from espalier.core.plugins import find_plugins, load_plugin

_REFERENCE = {"type": "string", "pattern": r"^\$\{[a-z0-9_.]+\}$"}
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
# What -> module:type; a string, so that one schema imports one stage.
_PARTS = {
    "data": "espalier.data.spec:DataSpec",
    "drift": "espalier.data.drift.spec:DriftSpec",
    "create": "espalier.train.recipe:CreateSpec",
    "search": "espalier.train.search:SearchSpec",
    "annotate": "espalier.data.annotation.automatic:AnnotateSpec",
    "apply": "espalier.data.annotation.apply:ApplySpec",
    "generate": "espalier.data.generate.spec:GenerateSpec",
    "eval": "espalier.services.steps.eval_run:EvalRunSpec",
}


def make_schema(what: str) -> dict[str, Any]:
    """The schema of `recipe`, `config`, `data`, `drift`, `generate`, `annotate`, `apply`, `create`, `sft`, `eval`."""
    if what == "recipe":
        return {"$schema": _DRAFT, **_recipe_schema()}
    if what in find_plugins("espalier.methods"):
        from espalier.train.method import load_method

        return {"$schema": _DRAFT, **load_method(what).spec.model_json_schema(by_alias=True)}
    kind: type[BaseModel] = Config if what == "config" else _load(_PARTS[what])
    return {"$schema": _DRAFT, **kind.model_json_schema(by_alias=True)}


def _recipe_schema() -> dict[str, Any]:
    from espalier.pipeline.graph import Graph

    schema = Graph.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    node = definitions["Node"]
    names = sorted(find_plugins("espalier.steps"))
    node["properties"]["step"]["examples"] = names
    rules = []
    for name in names:
        spec = load_plugin("espalier.steps", name).spec.model_json_schema(
            by_alias=True, ref_template=f"#/$defs/{name}.{{model}}"
        )
        for key, definition in spec.pop("$defs", {}).items():
            definitions[f"{name}.{key}"] = _map(definition, _allow_reference)
        spec.pop("required", None)  # a step may be given by several recipes: what is missing is said when it is run
        definitions[name] = _map(spec, _allow_reference)
        rules.append(
            {
                "if": {"properties": {"step": {"const": name}}},
                "then": {"properties": {"with": {"$ref": f"#/$defs/{name}"}}},
            }
        )
    node["allOf"] = rules
    return schema


def _allow_reference(schema: dict[str, Any]) -> dict[str, Any]:
    """A scalar or list that is no plain string may also be a `${...}` reference."""
    kept: dict[str, Any]
    if schema.get("type") in ("integer", "number", "boolean", "array"):
        kept = {key: schema[key] for key in ("title", "description", "default") if key in schema}
        inner = {key: value for key, value in schema.items() if key not in kept}
        return kept | {"anyOf": [inner, _REFERENCE]}
    return schema


def _map(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """`change` applied to every schema inside, innermost first."""
    if isinstance(schema, list):
        return [_map(item, change) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {
        key: value if key in ("default", "const", "enum", "examples") else _map(value, change)
        for key, value in schema.items()
    }
    return change(inner)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
