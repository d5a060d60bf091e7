"""Every line looked at before the first is asked: is it a request, is its name its own, may its model be asked.

What is wrong goes to the journal as that line's refusal; the other lines run. Each model's name is pinned to the
version it means now, so that all lines of a batch, and those asked again after a crash, are answered by the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from espalier.core.errors import Conflict, EspalierError, InvalidInput
from espalier.core.ids import canonical_json
from espalier.gateway.batch.journal import Entry, Journal
from espalier.gateway.batch.records import Batch
from espalier.gateway.batch.shapes import Shape
from espalier.gateway.batch.source import Names, Source
from espalier.gateway.desk import Desk
from espalier.wire.batchline import Asked

_GROUP = 1000
_DEEPEST = 256  # lists and objects within each other: far from where Python's reader and writer of JSON give up


class Check:
    """Looks at one batch's lines. Blocks; `stopped()` is asked now and then whether to leave off."""

    def __init__(
        self, batch: Batch, shape: Shape, source: Source, journal: Journal, desk: Desk, most_line_bytes: int
    ) -> None:
        self._batch, self._shape = batch, shape
        self._source, self._journal = source, journal
        self._desk = desk
        self._most_line_bytes = most_line_bytes
        self._refused: dict[str, EspalierError] = {}
        self._group: list[Entry] = []

    def run(self, stopped: Callable[[], bool], note: Callable[[], None]) -> bool:
        """Look at every line; False when it was stopped before the end. `note` is called after each group."""
        names = Names()
        for number in range(len(self._source)):
            asked = self.decode(number)
            if asked.name and self._shape.unique:
                names.add(asked.name, number)
            self._look_at(number, asked)
            if number % _GROUP == _GROUP - 1:
                self._write()
                note()
                if stopped():
                    return False
        for suspects in names.suspects():
            self._refuse_doubles(suspects)
        self._group.append(Entry("."))
        self._write()
        return True

    def decode(self, number: int) -> Asked:
        """A line in our words; one that is too long is not read, nor one that is nested too deeply."""
        if self._source.size(number) > self._most_line_bytes:
            long = InvalidInput(f"this line is longer than {self._most_line_bytes} bytes", hint="send less text")
            return Asked("", fault=long, fault_code="invalid_request")
        raw, name = self._source.read(number), ""
        try:
            asked = self._shape.decode(raw, number)
            if raw.count(b"[") + raw.count(b"{") <= _DEEPEST or not _is_deep(asked.body):
                return asked
            name = asked.name
        except RecursionError:
            pass
        deep = InvalidInput(f"this line nests more than {_DEEPEST} lists and objects", hint="send a flatter schema")
        return Asked(name, fault=deep, fault_code="invalid_request")

    def _look_at(self, number: int, asked: Asked) -> None:
        if asked.call is not None:
            fault = self._pin(asked)
            asked = replace(asked, fault=fault) if fault else asked
        if asked.fault is not None and not self._journal.is_done(number):
            self._refuse(number, asked)

    def _pin(self, asked: Asked) -> EspalierError | None:
        if asked.call is None or asked.call.model in self._journal.pins:
            return None
        name = asked.call.model
        if name not in self._refused:
            try:
                target = self._desk.route(asked.call.model_copy(update={"user": ""}), self._batch.key, self._batch.id)
            except EspalierError as error:
                if isinstance(error, Conflict) and "database" in error.message:
                    raise  # it is busy: nothing is known of the model
                self._refused[name] = error
            else:
                self._journal.add([Entry("@", text=canonical_json({name: target.model}))])
        return self._refused.get(name)

    def _refuse_doubles(self, suspects: list[int]) -> None:
        seen: set[str] = set()
        for number in suspects:
            asked = self.decode(number)
            if asked.name in seen:
                wrong = InvalidInput(f"custom_id {asked.name!r:.100} was given before", hint="no name twice")
                self._refuse(number, replace(asked, fault=wrong, fault_code="duplicate_custom_id"))
            seen.add(asked.name)

    def _refuse(self, number: int, asked: Asked) -> None:
        text = self._shape.refuse(self._batch.request_id(number), asked, number)
        self._group.append(Entry("-", number, text))

    def _write(self) -> None:
        group, self._group = self._group, []
        if group:
            self._journal.add(group)


def _is_deep(body: dict[str, Any]) -> bool:
    level: list[Any] = [body]
    for _ in range(_DEEPEST):
        children = (each.values() if isinstance(each, dict) else each for each in level)
        level = [child for each in children for child in each if isinstance(child, dict | list)]
    return bool(level)
