"""One way in for every face: fields become a request, the role is checked, and the operation is called by its shape.

Knows the shapes, not the operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from espalier.core.faults import refuse
from espalier.core.operations import Operation, find_operation
from espalier.core.types import Principal
from espalier.services.context import Context
from espalier.services.queue import submit_job


def parse_request(operation: Operation, fields: Mapping[str, Any]) -> BaseModel:
    """The request that `fields` describe.

    Raises InvalidInput naming what is wrong, with a hint where a known name is near: where to read on, each face knows.
    """
    kind = operation.request
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        raise refuse(error, dict(fields), kind, what=operation.name) from None


def perform(context: Context, operation: Operation, request: BaseModel, *, head_start_s: float = 0) -> Any:
    """The operation's answer, its stream, or the queued Run of a job, which waits `head_start_s` for its maker.

    Raises PermissionDenied when the context's identity has too low a role, and whatever the operation raises.
    """
    context.require(operation.role)
    if operation.shape == "job":
        return submit_job(context, operation, request, head_start_s=head_start_s)
    return operation.call(context, request)


def call_operation(context: Context, principal: Principal, name: str, fields: Mapping[str, Any]) -> Any:
    """`perform` by name for an identity: what the pages call."""
    operation = find_operation(name)
    return perform(context.acting_as(principal), operation, parse_request(operation, fields))
