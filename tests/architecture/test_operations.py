"""Every operation can be called from every face: named, described, with a route of its own and fields that teach."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

import pytest
from pydantic import TypeAdapter

from espalier.cli.options import common_options
from espalier.core.operations import Operation, broken_operations, load_operations
from espalier.core.plugins import GROUPS

OPERATIONS = list(load_operations().values())
NAMES = [operation.name for operation in OPERATIONS]
# Paths the gateway answers before any operation is asked.
GATEWAY = ("/v1/chat/", "/v1/models", "/v1/files", "/v1/batches", "/healthz", "/metrics")


def test_every_entry_point_of_ours_loads() -> None:
    assert dict(broken_operations()) == {}
    for group in GROUPS:
        for point in entry_points(group=group):
            if point.value.startswith("espalier."):
                assert point.load() is not None, point


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_an_operation_is_named_and_described(operation: Operation) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", operation.name)
    assert operation.summary.endswith((".", ":", "?")) or len(operation.summary) > 10
    assert operation.summary[0].isupper()


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_an_operations_fields_are_described(operation: Operation) -> None:
    silent = [name for name, field in operation.request.model_fields.items() if not field.description]
    assert silent == []
    assert operation.request.__doc__
    assert operation.request.model_config.get("extra") == "forbid"
    assert set(operation.positional) <= set(operation.request.model_fields)


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_an_operations_fields_do_not_clash_with_the_common_options(operation: Operation) -> None:
    taken = {flag for option in common_options() for flag in option.opts} | {"--help", "--detach", "--version"}
    flags = {f"--{name.replace('_', '-')}" for name in operation.request.model_fields}
    assert taken & flags == set()


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_an_operations_answer_has_a_schema(operation: Operation) -> None:
    if operation.shape != "stream":
        assert TypeAdapter(operation.response).json_schema(mode="serialization")


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_a_routes_parameters_are_fields(operation: Operation) -> None:
    method, path = operation.route.split(" ")
    assert method in {"GET", "POST", "DELETE"} and path.startswith("/v1/")
    for name in re.findall(r"{(\w+)}", path):
        assert operation.request.model_fields[name].is_required()
    assert not path.startswith(GATEWAY), "the gateway answers there"


def test_no_two_operations_share_a_route() -> None:
    routes = [operation.route for operation in OPERATIONS]
    assert sorted(routes) == sorted(set(routes))
    # A parameter must not swallow a sibling's fixed path: {id} would match it, whichever is asked first.
    for operation in OPERATIONS:
        pattern = re.compile(re.sub(r"{\w+}", "[^/]+", operation.route))
        shadowed = [other.route for other in OPERATIONS if other is not operation and pattern.fullmatch(other.route)]
        assert shadowed == [], operation.route


def test_whatever_changes_something_is_not_a_get() -> None:
    changing = {"create", "approve", "reject", "promote", "rollback", "revoke", "cancel", "init", "save", "run"}
    assert [o.route for o in OPERATIONS if o.verb in changing and o.route.startswith("GET")] == []
