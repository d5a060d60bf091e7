"""What tokens cost, by model: integer nano-USD, rounded up, from a table of patterns. Knows no budget.

A row names a model exactly or by a prefix and `*`. An exact row beats a pattern, a longer pattern a shorter one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from espalier.core.config import PriceConfig
from espalier.core.errors import InvalidInput
from espalier.core.money import price_tokens
from espalier.core.ports import Lane


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens."""

    prompt: Decimal
    completion: Decimal
    batch: Decimal = Decimal(1)  # what a batch's requests cost, as a share of it

    def cost_nusd(self, prompt_tokens: int, completion_tokens: int) -> int:
        return price_tokens(prompt_tokens, self.prompt) + price_tokens(completion_tokens, self.completion)

    def in_lane(self, lane: Lane) -> Price:
        """The price in that lane."""
        if lane == "interactive" or self.batch == 1:
            return self
        return Price(self.prompt * self.batch, self.completion * self.batch)


class PriceList:
    """The house's prices. Raises InvalidInput for a row that is no price."""

    def __init__(self, rows: Mapping[str, PriceConfig]) -> None:
        self._exact: dict[str, Price] = {}
        self._prefixes: dict[str, Price] = {}
        for name, row in rows.items():
            price = Price(
                _parse(row.prompt, name, "prompt"),
                _parse(row.completion, name, "completion"),
                _parse(row.batch, name, "batch"),
            )
            if "*" in name[:-1]:
                raise InvalidInput(f"a * may only end a name, not {name!r}", where="gateway.prices")
            if name.endswith("*"):
                self._prefixes[name[:-1]] = price
            else:
                self._exact[name] = price

    def find(self, names: Iterable[str], lane: Lane = "interactive") -> Price | None:
        """The price of a model known by any of `names`, the most telling first; None when no row matches."""
        known = tuple(names)
        found = next((self._exact[name] for name in known if name in self._exact), None)
        if found is None:
            matching = [prefix for prefix in self._prefixes if any(name.startswith(prefix) for name in known)]
            found = self._prefixes[max(matching, key=len)] if matching else None
        return found.in_lane(lane) if found is not None else None


def _parse(text: str, model: str, side: str) -> Decimal:
    where = f"gateway.prices.{model}.{side}"
    try:
        price = Decimal(text)
    except InvalidOperation:
        raise InvalidInput(f"{text!r} is not a price", where=where, hint="USD per million tokens, e.g. 0.40") from None
    if not price.is_finite() or price < 0:
        raise InvalidInput(f"{text!r} is not a price", where=where, hint="write 0 for what costs nothing")
    return price
