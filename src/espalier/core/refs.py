"""`model:support@production`: the one way anything versioned is named.

A selector after `@` is a version (`v4`), an alias (`production`), a digest (`sha256:...`), or absent (= `latest`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from espalier.core.errors import InvalidInput, did_you_mean

KINDS = ("dataset", "prompt", "model", "run", "report", "deployment")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SELECTOR = re.compile(r"v[1-9][0-9]*|(?!v[0-9])[a-z][a-z0-9-]{0,31}|sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Ref:
    """A parsed reference; `str(ref)` writes it back in full."""

    kind: str
    name: str
    selector: str = "latest"

    @classmethod
    def parse(cls, text: str, *, kind: str = "") -> Ref:
        """Parse `kind:name@selector`; with `kind`, the `kind:` may be left out. Raises InvalidInput."""
        head, colon, rest = text.partition(":")
        if not colon or head not in KINDS:
            if kind and (not colon or "@" in head):
                head, rest = kind, text
            else:
                hint = did_you_mean(head, KINDS) if colon else f"write {kind or 'model'}:name@version"
                raise InvalidInput(f"{text!r} is not a reference", hint=hint)
        if kind and head != kind:
            raise InvalidInput(f"{text!r} names a {head}, a {kind} is wanted", hint=f"write {kind}:name@version")
        name, at, selector = rest.partition("@")
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{name!r} is not a name",
                hint="use lower-case letters, digits, dots, dashes and underscores, e.g. support-bot",
            )
        if at and not _SELECTOR.fullmatch(selector):
            raise InvalidInput(f"{selector!r} is neither a version nor an alias", hint="write @v3 or @production")
        return cls(head, name, selector or "latest")

    @property
    def version(self) -> int | None:
        """The number of a `vN` selector, else None."""
        return int(self.selector[1:]) if re.fullmatch(r"v[1-9][0-9]*", self.selector) else None

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}@{self.selector}"
