"""The SDK in process: run a recipe, follow its events, read what came out.

    espalier init project && python examples/watch_a_run.py project recipe.yaml

With `Client(url="http://127.0.0.1:8321", key="esp_...")` the same lines speak to a running server.
"""

from __future__ import annotations

import sys

from espalier.core.events import Event
from espalier.sdk.client import Client


def show(event: Event) -> None:
    """One line for what a person may want to know."""
    if event.kind == "step.finished":
        print(f"{event.data['name']:<12} {'hit' if event.data['hit'] else 'ran':<4} {event.data['reason']}")
    elif event.kind == "train.step":
        print(f"  step {event.data['step']:>4}  loss {event.data['loss']:.3f}")


def main(workspace: str, recipe: str) -> None:
    """Run `recipe` in `workspace`; raises the error of the step that failed."""
    with Client(workspace) as client:
        run = client.pipelines.run(recipe=recipe).wait(show)
        print(f"{run.id} {run.status}")
        for name, digest in run.outputs.items():
            print(f"  {name:<24} {digest[:12]}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
