"""`espalier serve` for benchmarks/soak.py, with a window: a line on stdin is answered by what is alive inside.

Counts what no client can see: objects by class, as the garbage collector knows them, and what the engines say of
their slots. Run as: soak_server.py WORKSPACE SETTING=VALUE ...
"""

from __future__ import annotations

import gc
import json
import re
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from espalier.cli.server import serve
from espalier.services.context import open_context

# What a request leaves behind if it is forgotten.
WATCHED = re.compile(r"(espalier\.(serve|gateway|services)\..*\.(Work|Ticket|_Use|Lease|Exchange)|_asyncio\.Task)$")


def main() -> None:
    context = open_context(Path(sys.argv[1]), overrides=sys.argv[2:])
    threading.Thread(target=_answer_looks, daemon=True).start()
    serve(context, announce=lambda url: print(json.dumps({"url": url}), flush=True))


def _answer_looks() -> None:
    for _ in sys.stdin:
        print(json.dumps(look()), flush=True)


def look() -> dict[str, Any]:
    """Live objects of the watched classes; the engines' slots; memory."""
    gc.collect()
    engines, counts = [], Counter[str]()
    for thing in gc.get_objects():
        kind = type(thing)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name == "espalier.serve.engine.Engine":
            engines.append(thing)
        elif WATCHED.match(name):
            counts[name] += 1
    loads = [engine.load() for engine in engines]
    return {
        "alive": dict(sorted(counts.items())),
        "running": sum(load.running for load in loads),
        "waiting": sum(load.waiting for load in loads),
        "adapters": sum(len(engine.list_adapters()) for engine in engines),
        "threads": threading.active_count(),
    }


if __name__ == "__main__":
    main()
