"""One step of a pipeline: found by its key and reused, or the reason why not and its execution."""

from __future__ import annotations

from collections.abc import Mapping

from espalier.core.ids import make_id
from espalier.pipeline.attempt import execute_plan
from espalier.pipeline.explain import explain_hit, explain_miss
from espalier.pipeline.key import Ingredients
from espalier.pipeline.locks import FileLock
from espalier.pipeline.plan import Plan, Setting, finished_event, make_plan, new_run
from espalier.pipeline.result import NodeResult
from espalier.store.cache import CacheRow


def run_node(setting: Setting, name: str, inputs: Mapping[str, str]) -> NodeResult:
    """Do the step `name` with `inputs` (port -> digest), or find it done. Raises the step's error, Interrupted."""
    plan = make_plan(setting, name, inputs)
    if plan.step.side_effect:
        return execute_plan(setting, plan, "side effect: done every time, idempotent by its key")
    outside = plan.step.outside(plan.step.spec.model_validate(plan.spec))
    found, reason = _look_up(setting, plan, outside)
    if found is not None:
        return _reuse(setting, plan, found)
    lock = FileLock(setting.store.workspace.scratch_folder(plan.key).with_suffix(".lock"))
    lock.acquire(setting.stop)
    try:
        found, _ = _look_up(setting, plan, outside)  # whoever held the lock may have done it meanwhile
        if found is not None:
            return _reuse(setting, plan, found)
        return execute_plan(setting, plan, reason, (lock.descriptor,))
    finally:
        lock.release()


def _look_up(setting: Setting, plan: Plan, outside: str) -> tuple[CacheRow | None, str]:
    """The cached row that can be used, or None and why not. outside: what no key can hold that the step reads."""
    if outside:
        return None, f"reads {outside}: done every time, for it may have changed"
    cache, artifacts = setting.store.cache, setting.store.artifacts
    row = cache.find(plan.key)
    if row is None:
        latest = cache.latest(setting.graph.name, plan.name)
        return None, explain_miss(plan.ingredients, Ingredients.model_validate(latest.ingredients) if latest else None)
    for port, digest in row.outputs.items():
        fault = artifacts.check(digest)
        if fault:
            return None, f"miss: output {port} of {row.run} is damaged: {fault}"
    return row, ""


def _reuse(setting: Setting, plan: Plan, row: CacheRow) -> NodeResult:
    result = NodeResult(
        plan.name, plan.step.id, "hit", explain_hit(row.run), make_id("run"), dict(row.outputs), dict(row.metrics)
    )
    run = new_run(setting, plan, result.run)
    with setting.store.transaction():
        setting.store.cache.use(plan.key, setting.graph.name, plan.name)
        setting.store.runs.create(
            run.model_copy(
                update={
                    "status": "succeeded",
                    "ended_ms": run.started_ms,
                    "outputs": result.outputs,
                    "metrics": result.metrics,
                    "cache_hit_of": row.run,
                }
            )
        )
    setting.emit(finished_event(result))
    return result
