from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.types import Canary, Deployment, Shadow, Variant
from espalier.gateway.split import choose_shadows, choose_variant


def deployment(weights: dict[str, float], **fields: object) -> Deployment:
    variants = tuple(Variant(model=model, weight=weight) for model, weight in weights.items())
    body = {"name": "support", "revision": 1, "variants": variants, "action": "split", "actor": "ann", "at_ms": 0}
    return Deployment.model_validate(body | fields)


def canary(*steps: float, step: int = 0) -> Canary:
    return Canary(candidate="new", steps_percent=steps, step=step)


def test_requests_are_shared_in_proportion_to_the_weights() -> None:
    shared = deployment({"one": 90, "two": 9, "three": 1})
    counts = Counter(choose_variant(shared, f"user-{i}") for i in range(20_000))
    assert counts["one"] == pytest.approx(18_000, abs=200)
    assert counts["two"] == pytest.approx(1_800, abs=150)
    assert counts["three"] == pytest.approx(200, abs=60)


@given(st.text(max_size=20), st.floats(0.1, 100), st.floats(0.1, 100))
def test_an_asker_keeps_its_version(asker: str, one: float, two: float) -> None:
    shared = deployment({"one": one, "two": two})
    assert choose_variant(shared, asker) == choose_variant(shared, asker)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 100), min_size=2, max_size=5, unique=True).map(sorted), st.text(max_size=10))
def test_a_canary_that_grows_never_gives_an_asker_back(steps: list[int], asker: str) -> None:
    reached = [
        choose_variant(deployment({"one": 1, "two": 1}, canary=canary(*steps, step=step)), asker) == "new"
        for step in range(len(steps))
    ]
    assert reached == sorted(reached)


def test_a_canary_takes_its_share_evenly_from_the_others() -> None:
    shared = deployment({"one": 3, "two": 1}, canary=canary(20, 100))
    counts = Counter(choose_variant(shared, str(i)) for i in range(20_000))
    assert counts["new"] == pytest.approx(4_000, abs=200)
    assert counts["one"] / counts["two"] == pytest.approx(3, rel=0.1)


def test_at_its_last_step_everybody_asks_the_canary() -> None:
    shared = deployment({"one": 1}, canary=canary(100))
    assert {choose_variant(shared, str(i)) for i in range(500)} == {"new"}


def test_a_shadow_gets_its_share_of_copies_and_only_that() -> None:
    shared = deployment({"one": 1}, shadows=(Shadow(model="dark", share=0.2), Shadow(model="every", share=1)))
    cast = [choose_shadows(shared, f"req-{i}") for i in range(5_000)]
    assert all("every" in models for models in cast)
    assert sum("dark" in models for models in cast) == pytest.approx(1_000, abs=120)
