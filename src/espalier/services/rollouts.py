"""`Rollouts`: watches the canaries of this process' requests, takes them a step further or back.

Every process that answers watches what it answered itself; whoever sees a failure first rolls back, and
compare-and-set makes the others see that it is done. Counts live as long as a step and the process: after a restart a
step is judged anew, which can only make it longer. Knows no request.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from espalier.core.errors import Conflict, EspalierError
from espalier.core.ids import now_ms
from espalier.core.types import Canary, Deployment
from espalier.gateway.canary import Step, Verdict

if TYPE_CHECKING:
    from espalier.gateway.desk import Outcome
    from espalier.store.store import Store

ACTOR = "canary"  # in the audit log, where no person acted
_log = logging.getLogger("espalier.rollouts")


class Rollouts:
    """`note` may be called from any thread; `start` watches in a daemon thread until `stop`."""

    def __init__(self, store: Store, *, every_s: float = 1.0, clock_ms: Callable[[], int] = now_ms) -> None:
        self._store = store
        self._every_s = every_s
        self._clock_ms = clock_ms
        self._lock = threading.Lock()
        self._seen: defaultdict[str, Step] = defaultdict(Step)  # deployment -> what is seen of the step under way
        self._revisions: dict[str, int] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch in the background."""
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; canaries stay at their step."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def note(self, outcome: Outcome) -> None:
        """Take in how a request to a deployment ended."""
        with self._lock:
            step = self._seen[outcome.target.deployment]
            step.add(outcome.target.model, outcome.latency_ms, failed=outcome.failed)

    def look(self) -> list[Deployment]:
        """Judge every canary once; returns the revisions this made."""
        from espalier.registry.deployments import list_deployments

        changed = []
        for deployment in list_deployments(self._store):
            if deployment.canary is None:
                continue
            verdict = self._judge(deployment, deployment.canary)
            if verdict.action == "wait":
                continue
            try:
                changed.append(self._act(deployment, deployment.canary, verdict))
            except Conflict as error:  # a person, or another process, was first
                _log.warning("canary of %s stays as it is: %s", deployment.name, error)
        return changed

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self.look()
            except EspalierError as error:
                _log.warning("canaries could not be judged: %s", error)
            except Exception:  # noqa: BLE001 - or no canary would be judged any more, and nobody would know
                _log.exception("canaries could not be judged")

    def _judge(self, deployment: Deployment, canary: Canary) -> Verdict:
        from espalier.registry.versions import get_version

        if get_version(self._store, canary.candidate).status != "Approved":
            return Verdict("rollback", f"{canary.candidate} is approved no longer")
        with self._lock:
            if self._revisions.get(deployment.name) != deployment.revision:  # a new step: what was seen counts no more
                self._revisions[deployment.name] = deployment.revision
                self._seen[deployment.name] = Step()
            return self._seen[deployment.name].judge(canary, (self._clock_ms() - deployment.at_ms) / 1000)

    def _act(self, before: Deployment, canary: Canary, verdict: Verdict) -> Deployment:
        from espalier.core.types import Variant
        from espalier.registry.deployments import change_deployment, rollback_deployment

        _log.warning("canary %s of %s: %s (%s)", canary.candidate, before.name, verdict.action, verdict.reason)
        if verdict.action == "rollback":
            return rollback_deployment(
                self._store, before.name, actor=ACTOR, reason=verdict.reason, expect=before.revision
            )
        said: dict[str, Any] = {"canary": canary.model_copy(update={"step": canary.step + 1})}
        action = "step"
        if canary.step + 1 == len(canary.steps_percent):
            action, said = "finish", {"canary": None, "variants": (Variant(model=canary.candidate),)}
        return change_deployment(
            self._store, before.name, actor=ACTOR, action=action, before=before, reason=verdict.reason, **said
        )
