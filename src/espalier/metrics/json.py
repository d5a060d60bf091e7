"""Metric of answers that are JSON documents: valid by a schema.

The whole answer is the document, as it would be for the program that reads it. A schema reaches for nothing outside
itself: a `$ref` to another place is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput, NotFound
from espalier.metrics.metric import Answered, Measurement, Metric, Ratio

Schema = str | dict[str, Any]


def json_valid(schema: Schema = "") -> Metric:
    """1 when the answer is JSON and valid by `schema`: its text, the path of a file, or the schema itself.

    Without a schema any JSON is valid. Drafts 3 to 2020-12, by `$schema` (the newest where it is not said).
    Raises NotFound for a file that is not there, InvalidInput for what is no schema.
    """
    validator = _load_validator(schema)

    def measure(case: Answered) -> Measurement:
        try:
            document = json.loads(case.answer, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            return Measurement(0.0, why=f"not JSON: {error}")
        fault = _first_fault(validator, document)
        return Measurement(0.0, why=fault) if fault else Measurement(1.0)

    return Ratio("json_valid", measure)


def _load_validator(schema: Schema) -> Any:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    where = "json_valid.schema"
    if isinstance(schema, str):
        where, schema = _read_schema(schema, where)
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise InvalidInput(f"not a JSON schema: {error.message}", where=where, hint=f"at {error.json_path}") from None
    return kind(schema, registry=Registry())  # of its own: the default one would fetch a `$ref` over the network


def _read_schema(text: str, where: str) -> tuple[str, Any]:
    if text and not text.lstrip().startswith(("{", "true", "false")):
        path = Path(text)
        if not path.is_file():
            raise NotFound(f"no schema file {text}", hint="give the path of a JSON file, or the schema itself")
        where, text = text, path.read_text("utf-8")
    try:
        found = json.loads(text or "true")
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}", where=where) from None
    if not isinstance(found, dict | bool):
        raise InvalidInput("a JSON schema is an object, true or false", where=where)
    return where, found


def _first_fault(validator: Any, document: Any) -> str:
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        fault = best_match(validator.iter_errors(document))
    except Unresolvable as error:
        raise InvalidInput(
            f"the schema refers to {error.ref}, which is not in it", where="json_valid.schema",
            hint="put all definitions into one schema",
        ) from None  # fmt: skip
    return f"{fault.json_path}: {fault.message}"[:300] if fault else ""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
