"""Espalier: the whole life of a customised foundation model, on your own machine.

    documents -> dataset version -> prompt version -> fine-tune -> evaluate -> gate -> approve
              -> serve -> gateway -> ledger

The package reads top-down in layers (docs/architecture.md): faces (`cli`, `sdk`, `api`, `web`) over `services`
over the stages (`data` ... `pipeline`) over `nn`, `tokens`, `store`, `wire` and `core`. An import points down, never
up or sideways.
"""

import os

# OpenMP threads that wait for each other spin by default. Where other processes are busy on the same cores that
# multiplies the time of every product (measured: 110 answers took 93 CPU-seconds instead of 15); sleeping costs 6 %.
# It is read when torch is first imported, so it stands here; a value of the user's own wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
