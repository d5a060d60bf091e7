"""Money is an integer number of nano-USD: sums are exact, and a token priced at 3 USD a million costs 3000 nUSD."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation

from espalier.core.errors import InvalidInput

NUSD_PER_USD = 1_000_000_000


def parse_usd(text: str) -> int:
    """`"0.25"` USD as nano-USD; raises InvalidInput for what is no amount or finer than a nano-USD."""
    try:
        amount = Decimal(text.strip().removeprefix("$")) * NUSD_PER_USD
    except InvalidOperation:
        raise InvalidInput(f"{text!r} is not an amount of money", hint="write dollars, e.g. 12.50") from None
    if not amount.is_finite() or amount != amount.to_integral_value():
        raise InvalidInput(f"{text!r} is finer than a nano-USD", hint="use at most nine decimals")
    return int(amount)


def format_usd(nusd: int) -> str:
    """Dollars with as many decimals as the amount needs, and at least two: `$0.000123`."""
    sign = "-" if nusd < 0 else ""
    whole, rest = divmod(abs(nusd), NUSD_PER_USD)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole}.{decimals}"


def price_tokens(tokens: int, usd_per_million: Decimal) -> int:
    """What `tokens` cost at a price per million, in nano-USD, rounded up: we never undercharge a budget."""
    exact = Decimal(tokens) * usd_per_million * NUSD_PER_USD / 1_000_000
    return int(exact.to_integral_value(rounding=ROUND_CEILING))
