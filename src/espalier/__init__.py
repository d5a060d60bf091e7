"""Espalier: the whole life of a customised foundation model, on your own machine.

    documents -> dataset version -> prompt version -> fine-tune -> evaluate -> gate -> approve -> serve -> gateway -> ledger

The package reads top-down in layers (docs/architecture.md): faces (`cli`, `sdk`, `api`, `web`) over `services`
over the stages (`data` ... `pipeline`) over `nn`, `tokens`, `store`, `wire` and `core`. An import points down, never up or
sideways.
"""

__version__ = "0.1.0"
