"""A canary from start to end: real registry, resolver, desk and operations; the model is the strict double."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from espalier.core.config import GatewayConfig, PolicyConfig, ServeConfig
from espalier.core.errors import Conflict, EspalierError, InvalidInput, NotFound, Unavailable
from espalier.core.ports import ChatRequest, Delta
from espalier.core.types import Deployment, Message, ModelVersion
from espalier.gateway.assembly import open_desk
from espalier.gateway.desk import Desk
from espalier.registry.aliases import promote
from espalier.registry.approvals import approve
from espalier.registry.deployments import find_deployment, get_deployment, list_revisions
from espalier.registry.versions import Registration, register
from espalier.services import deployments
from espalier.services.context import Context, open_context
from espalier.services.deploymentpage import describe_shares
from espalier.services.resolver import RegistryResolver
from espalier.services.rollouts import Rollouts
from espalier.store.workspace import init_workspace
from espalier.testing.provider import StrictProvider
from espalier.wire.openai.request import ChatCall

STEPS = (10.0, 50.0, 100.0)
OPEN = PolicyConfig(four_eyes=False, require_report=False, require_dataset=False)


class Bench:
    """Clients on one side, a clock and a watch on the other."""

    def __init__(self, context: Context, folder: Path) -> None:
        self.context, self.store = context, context.store
        self.versions = [self._version(folder, weights) for weights in ("old", "new")]
        self.old, self.new = (version.ref for version in self.versions)
        self.provider = Adapters(bad="")
        self.now_ms = 0
        self.rollouts = Rollouts(self.store, clock_ms=lambda: self.now_ms)
        resolver = RegistryResolver(self.store, ServeConfig())
        self.desk: Desk = open_desk(self.store, self.provider, resolver, GatewayConfig())
        self.desk.on_outcome = self.rollouts.note
        self._asked = 0

    def _version(self, folder: Path, weights: str) -> ModelVersion:
        return approve(self.store, OPEN, self.submit(folder, weights).ref, actor="bob")

    def submit(self, folder: Path, weights: str) -> ModelVersion:
        """A version that waits for approval."""
        place = folder / weights
        place.mkdir()
        facts = {"base": "builtin:seedling", "base_digest": "b" * 64, "special_tokens": {}, "recipe": ""}
        (place / "espalier.json").write_text(json.dumps(facts))
        (place / "adapter_model.safetensors").write_text(weights)
        adapter = self.store.artifacts.put("adapter", place).digest
        made = Registration(name="support", base="builtin:seedling", base_digest="b" * 64, adapter=adapter)
        return register(self.store, made, actor="ann")

    def start_canary(self) -> None:
        split = deployments.SplitDeployment(name="support", variants={self.old: 1})
        deployments.split(self.context, split)
        asked = deployments.StartCanary(
            name="support",
            candidate=self.new,
            steps_percent=STEPS,
            step_s=60,
            min_requests=5,
            max_latency_ratio=1e6,  # how fast the double is, is the machine's
        )
        self.begin(deployments.canary(self.context, asked))

    def begin(self, revision: Deployment) -> None:
        """A step begins now, by the watch's clock."""
        self.now_ms = revision.at_ms
        self.rollouts.look()

    def ask(self, times: int) -> dict[str, int]:
        """Who answered; failures under ''."""

        async def all_of_them() -> list[str]:
            return [await self._ask_one() for _ in range(times)]

        answers = asyncio.run(all_of_them())
        return {name: answers.count(name) for name in sorted(set(answers))}

    async def _ask_one(self) -> str:
        self._asked += 1
        call = ChatCall(model="support", messages=(Message("user", "one two"),), user=f"user-{self._asked}")
        with suppress(EspalierError):
            ticket = await self.desk.admit_soon(call, None)
            return (await self.desk.complete(ticket)).resolved
        return ""


class Adapters(StrictProvider):
    """Fails whoever asks under the adapter `bad`."""

    def __init__(self, bad: str) -> None:
        super().__init__()
        self.bad = bad
        self.how: EspalierError = Unavailable("its numbers overflowed")

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        async for delta in super().stream(request):
            if request.adapter == self.bad:
                raise self.how
            yield delta


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    init_workspace(tmp_path / "project")
    context = open_context(tmp_path / "project", actor="ann")
    made = tmp_path / "made"
    made.mkdir()
    yield Bench(context, made)
    context.close()


def test_a_sound_candidate_takes_over_step_by_step(bench: Bench) -> None:
    bench.start_canary()
    shares = []
    for _ in STEPS:
        counts = bench.ask(150)
        shares.append(counts.get(bench.new, 0) / 150)
        assert set(counts) <= {bench.old, bench.new}
        bench.now_ms += 60_000
        changed = bench.rollouts.look()
        assert len(changed) == 1
        bench.begin(changed[0])
    assert shares == [pytest.approx(0.1, abs=0.08), pytest.approx(0.5, abs=0.12), 1.0]
    done = get_deployment(bench.store, "support")
    assert (done.action, done.canary, [variant.model for variant in done.variants]) == ("finish", None, [bench.new])
    assert bench.ask(20) == {bench.new: 20}


def test_a_failing_candidate_is_rolled_back_by_itself_and_nobody_asks_it_again(bench: Bench) -> None:
    bench.start_canary()
    bench.provider.bad = bench.versions[1].adapter
    failed = 0
    for _ in range(100):
        failed += bench.ask(1).get("", 0)
        if bench.rollouts.look():
            break
    now = get_deployment(bench.store, "support")
    assert (now.action, now.canary, now.actor) == ("rollback", None, "canary")
    assert "failed" in now.reason and failed == 3
    assert bench.ask(50) == {bench.old: 50}
    event = bench.store.audit.list(subject="deployment:support")[0]
    assert (event.action, event.actor) == ("deployments.rollback", "canary")


def test_what_a_client_did_wrong_takes_no_candidate_back(bench: Bench) -> None:
    bench.start_canary()
    bench.provider.bad = bench.versions[1].adapter
    bench.provider.how = InvalidInput("no schema", where="response_format")
    assert bench.ask(100)[""] > 5
    assert bench.rollouts.look() == []
    assert get_deployment(bench.store, "support").canary is not None


def test_a_candidate_approved_no_longer_is_taken_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.start_canary()
    rejected = bench.versions[1].model_copy(update={"status": "Rejected"})
    monkeypatch.setattr("espalier.registry.versions.get_version", lambda store, ref: rejected)
    with suppress(EspalierError):
        bench.rollouts.look()
    monkeypatch.undo()
    assert [revision.action for revision in list_revisions(bench.store, "support")][:1] == ["rollback"]


def test_a_person_who_is_first_is_not_overruled(bench: Bench) -> None:
    bench.start_canary()
    bench.ask(150)
    bench.now_ms += 60_000
    deployments.rollback(bench.context, deployments.RollbackDeployment(name="support", reason="on a hunch"))
    assert bench.rollouts.look() == []
    assert get_deployment(bench.store, "support").reason == "on a hunch"


def test_a_canary_of_a_model_without_deployment_begins_at_its_production_alias(bench: Bench) -> None:
    with pytest.raises(NotFound, match="no deployment support"):
        deployments.canary(bench.context, deployments.StartCanary(name="support", candidate=bench.new))
    promote(bench.store, bench.old, "production", actor="ann")
    begun = deployments.canary(bench.context, deployments.StartCanary(name="support", candidate=bench.new))
    assert [variant.model for variant in begun.variants] == [bench.old]
    back = deployments.rollback(bench.context, deployments.RollbackDeployment(name="support"))
    assert [variant.model for variant in back.variants] == [bench.old]


def test_a_canary_that_is_refused_leaves_no_deployment_behind(bench: Bench, tmp_path: Path) -> None:
    promote(bench.store, bench.old, "production", actor="bob")
    waiting = bench.submit(tmp_path, "newest").ref
    for candidate, error in ((bench.old, Conflict), (waiting, Conflict), ("support@v9", NotFound)):
        with pytest.raises(error):
            deployments.canary(bench.context, deployments.StartCanary(name="support", candidate=candidate))
        assert find_deployment(bench.store, "support") is None
        assert list_revisions(bench.store, "support") == []


def test_a_base_is_no_version_to_share_requests_among(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match="is a base"):
        deployments.split(bench.context, deployments.SplitDeployment(name="support", variants={"builtin:seedling": 1}))


def test_a_deployment_reads_as_shares_canary_shadows_and_revisions(bench: Bench) -> None:
    bench.start_canary()
    deployments.shadow(bench.context, deployments.SetShadows(name="support", shadows={bench.new: 0.2}))
    head, *rest = deployments.show(bench.context, deployments.NameDeployment(name="support")).to_text().splitlines()
    assert head.startswith("support, revision 3: shadow by ann, ")
    assert rest[:2] == ["  support@v1 90%", "  support@v2 10%"]
    assert rest[2].startswith("  canary support@v2: [10%] -> 50% -> 100%; a step lasts 60 s and 5 requests")
    assert rest[3] == "  shadow support@v2: copies of 20%, none answered yet"
    assert rest[4:6] == ["", "revisions"]
    assert [row.split()[0] for row in rest[6:]] == ["3", "2", "1"]
    assert rest[8].split()[3:] == ["split", "ann", "support@v1", "100%"]


def test_a_share_below_one_percent_is_told(bench: Bench) -> None:
    made = deployments.split(
        bench.context, deployments.SplitDeployment(name="support", variants={bench.old: 995, bench.new: 5})
    )
    assert describe_shares(made) == "support@v1 99.5%, support@v2 0.5%"


def test_what_serves_is_told_with_its_shares(bench: Bench) -> None:
    bench.start_canary()
    listed = {each.model: each.resolved for each in deployments.list_all(bench.context, deployments.ListDeployments())}
    assert listed["support"] == "support@v1 90%, support@v2 10%"
    shown = deployments.show(bench.context, deployments.NameDeployment(name="support"))
    assert shown.shares == listed["support"] and len(shown.revisions) == 2


def test_what_a_shadow_did_is_summed_up(bench: Bench) -> None:
    deployments.split(bench.context, deployments.SplitDeployment(name="support", variants={bench.old: 1}))
    deployments.shadow(bench.context, deployments.SetShadows(name="support", shadows={bench.new: 1}))

    async def ask_and_wait() -> None:
        for _ in range(3):
            await bench._ask_one()
        while bench.desk.shadows._running:
            await asyncio.sleep(0.01)

    asyncio.run(ask_and_wait())
    (seen,) = deployments.show(bench.context, deployments.NameDeployment(name="support")).shadows
    assert (seen.model, seen.copies, seen.same_words, seen.failed) == (bench.new, 3, 3, 0)
