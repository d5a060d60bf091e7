from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core.config import PolicyConfig
from espalier.core.types import EvalReport, ModelVersion, Score
from espalier.registry.policy import Evidence, check_policy, is_same_person

ADAPTER, BASE, DATASET = "a" * 64, "b" * 64, "d" * 64


def version(**changes: object) -> ModelVersion:
    fields = {
        "name": "support", "version": 1, "base": "builtin:seedling", "base_digest": BASE, "adapter": ADAPTER,
        "dataset": DATASET, "submitted_by": "ann", "created_ms": 1,
    }  # fmt: skip
    return ModelVersion.model_validate(fields | changes)


def report(subject: str = f"adapter:{ADAPTER}", split: str = "test", *counts: int) -> EvalReport:
    scores = [Score(name=f"m{i}", value=0.5, n=n, ci_low=0, ci_high=1) for i, n in enumerate(counts or (60,))]
    part = Score(name="m0/part", value=0.5, n=1, ci_low=0, ci_high=1)
    return EvalReport(subject=subject, label="tuned", dataset=DATASET, split=split, scores=(*scores, part))


def check(
    policy: PolicyConfig | None = None, approver: str = "bob", reports: tuple[EvalReport, ...] = (report(),),
    adapter_base: str = BASE, **changes: object,
) -> dict[str, bool]:  # fmt: skip
    made = version(**changes)
    evidence = Evidence(made, reports, bool(made.dataset), adapter_base)
    return {clause.name: clause.ok for clause in check_policy(policy or PolicyConfig(), evidence, approver)}


def test_a_complete_version_seen_by_a_second_person_meets_every_clause() -> None:
    assert check() == {"four_eyes": True, "held_out_report": True, "dataset": True, "adapter_base": True}


@pytest.mark.parametrize("approver", ["ann", "Ann", " ann ", "ANN"])
def test_the_submitter_is_not_a_second_person_however_the_name_is_written(approver: str) -> None:
    assert check(approver=approver)["four_eyes"] is False


@pytest.mark.parametrize(
    "reports",
    [
        (),
        (report(split="train"),),
        (report(split="validation"),),
        (report(subject="builtin:seedling"),),
        (report(subject=f"adapter:{'c' * 64}"),),
        (report(f"adapter:{ADAPTER}", "test", 29),),
        (report(f"adapter:{ADAPTER}", "test", 60, 29),),
    ],
)
def test_only_a_report_of_this_adapter_on_enough_held_out_cases_counts(reports: tuple[EvalReport, ...]) -> None:
    assert check(reports=reports)["held_out_report"] is False
    assert check(reports=(*reports, report()))["held_out_report"] is True


def test_a_base_is_reported_on_by_its_own_name() -> None:
    assert check(adapter="", reports=(report("builtin:seedling"),)) == {
        "four_eyes": True, "held_out_report": True, "dataset": True,
    }  # fmt: skip


def test_a_missing_dataset_and_a_strange_adapter_are_said() -> None:
    assert check(dataset="")["dataset"] is False
    assert check(adapter_base="c" * 64)["adapter_base"] is False


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 100), st.integers(0, 100))
def test_a_clause_is_demanded_exactly_when_the_policy_says_so(
    four_eyes: bool, require_report: bool, require_dataset: bool, min_cases: int, cases: int
) -> None:
    policy = PolicyConfig(
        four_eyes=four_eyes, require_report=require_report, require_dataset=require_dataset, min_cases=min_cases
    )
    found = check(policy, approver="ann", reports=(report(f"adapter:{ADAPTER}", "test", cases),))
    wanted = {"adapter_base": True}
    wanted |= {"four_eyes": False} if four_eyes else {}
    wanted |= {"held_out_report": cases >= min_cases} if require_report else {}
    wanted |= {"dataset": True} if require_dataset else {}
    assert found == wanted


@given(st.text(), st.text())
def test_one_identity_is_a_symmetric_matter(one: str, other: str) -> None:
    assert is_same_person(one, one)
    assert is_same_person(one, other) == is_same_person(other, one)
