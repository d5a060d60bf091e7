"""One operation, four faces: `@operation` is the only declaration of a use case.

CLI, HTTP, SDK and web are read off the table:

    @operation("models.promote", "POST /v1/models/promote", positional=("ref",))
    def promote(context: Context, request: PromoteModel) -> ModelVersion:
        "Point an alias at an approved version."

Three shapes: `answer` returns its response; `stream` returns an iterator of Events or Deltas (SSE over HTTP); `job`
returns a Run at once and works on in the durable queue, its progress being the run's event stream. Knows no face and
no service.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from espalier.core.errors import NotFound, did_you_mean
from espalier.core.plugins import find_plugins
from espalier.core.types.identity import Role

Shape = Literal["answer", "stream", "job"]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Operation:
    """One use case. `name` is `noun.verb`; `route` is `METHOD /path`; `positional` are CLI arguments without a flag."""

    name: str
    route: str
    call: Callable[..., Any]
    shape: Shape = "answer"
    positional: tuple[str, ...] = ()
    role: Role = "user"  # the least role that may call it over HTTP: user | approver | admin

    @property
    def noun(self) -> str:
        return self.name.split(".", 1)[0]

    @property
    def verb(self) -> str:
        return self.name.split(".", 1)[1]

    @property
    def summary(self) -> str:
        return self.help.split("\n", 1)[0]

    @property
    def help(self) -> str:
        return inspect.getdoc(self.call) or ""

    @property
    def request(self) -> type[BaseModel]:
        """The request's type: the annotation of the second parameter."""
        name = list(inspect.signature(self.call).parameters)[1]
        kind: type[BaseModel] = _resolve(self.call, self.call.__annotations__[name])
        return kind

    @property
    def response(self) -> Any:
        return _resolve(self.call, self.call.__annotations__["return"])


_TABLE: dict[str, Operation] = {}
_BROKEN: dict[str, str] = {}


def operation(
    name: str, route: str, *, shape: Shape = "answer", positional: tuple[str, ...] = (), role: Role = "user"
) -> Callable[[Function], Function]:
    """Declare `function(context, request) -> response` as an operation; the function itself stays as it is."""

    def declare(function: Function) -> Function:
        _TABLE[name] = Operation(name, route, function, shape, positional, role)
        return function

    return declare


def load_operations() -> Mapping[str, Operation]:
    """The whole table: every module in the `espalier.operations` group, imported once, in name order.

    A module that cannot be imported takes only its own operations with it; `broken_operations` says why.
    """
    for name, point in sorted(find_plugins("espalier.operations").items()):
        if name in _BROKEN:
            continue
        try:
            importlib.import_module(point.value)
        except ImportError as error:
            _BROKEN[name] = str(error)
    return dict(sorted(_TABLE.items()))


def broken_operations() -> Mapping[str, str]:
    """Entry points of operations that could not be imported, and why."""
    return dict(_BROKEN)


def find_operation(name: str) -> Operation:
    """Raises NotFound with the nearest name."""
    table = load_operations()
    if name not in table:
        raise NotFound(f"no operation {name!r}", hint=did_you_mean(name, table))
    return table[name]


def _resolve(function: Callable[..., Any], annotation: Any) -> Any:
    # Annotations are strings and the context's type is imported for type checkers only, so each is resolved by itself.
    if isinstance(annotation, str):
        return eval(annotation, vars(sys.modules[function.__module__]))  # noqa: S307 - our own source's annotations
    return annotation
