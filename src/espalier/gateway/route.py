"""A model's name as a client writes it -> the version, base and adapter that answer.

    support                         the version its alias `production` points to
    support@staging                 the version that alias points to
    support@v2, model:support@v2    that version
    builtin:seedling, hf:O/N        a base, as it is

Which versions exist and may serve is the registry's word: a `Resolver` is handed in. Does not know prices or keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from espalier.core.errors import InvalidInput, NotFound, did_you_mean
from espalier.core.refs import Ref
from espalier.core.types import SamplingSpec
from espalier.wire.openai.listing import Listing

BASES = ("builtin:", "hf:", "path:")
DEFAULT_ALIAS = "production"


@dataclass(frozen=True, slots=True)
class Target:
    """What answers a request. `defaults` is how it samples where the client says nothing."""

    model: str  # "model:support@v1", or the base's own name
    base: str
    adapter: str = ""  # artifact digest; empty = the base itself
    context_tokens: int = 1024
    defaults: SamplingSpec = field(default_factory=SamplingSpec)

    @property
    def name(self) -> str:
        """`support` of `model:support@v1`; a base's name is whole."""
        return self.model.removeprefix("model:").partition("@")[0] if self.model.startswith("model:") else self.model


class Resolver(Protocol):
    """What may be served. Both methods raise NotFound; they may block."""

    def find_version(self, ref: Ref) -> Target:
        """The version that `model:name@selector` means now. Raises also Conflict when it may not serve."""
        ...

    def find_base(self, name: str) -> Target: ...

    def list_models(self) -> Sequence[Listing]:
        """Every name that may be asked, the best first."""
        ...


def resolve(resolver: Resolver, name: str) -> Target:
    """Raises NotFound, its `where` being `model`, with the nearest name there is."""
    try:
        if name.startswith(BASES):
            return resolver.find_base(name)
        selected = name if "@" in name else f"{name}@{DEFAULT_ALIAS}"
        return resolver.find_version(Ref.parse(selected, kind="model"))
    except (NotFound, InvalidInput) as error:
        known = {listing.id.removesuffix(f"@{DEFAULT_ALIAS}") for listing in resolver.list_models()}
        hint = did_you_mean(name, known) or error.hint
        raise NotFound(f"no model {name!r:.100} is served here", hint=hint, where="model") from None
