"""`RayServeEngine`: a base as replicas of a Ray Serve deployment, on one machine or on a cluster. Imports no torch.

Ray places the replicas, watches and replaces them; who asks whom for what is ours, over deployment handles, and no
proxy of Ray's listens anywhere. https://docs.ray.io/en/latest/serve/model_composition.html (streaming responses),
.../serve/api/doc/ray.serve.config.AutoscalingConfig.html. Bases and adapters are named by their folders, so every node
must see the workspace under the same path.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self, cast

from pydantic import Field

from espalier.core.errors import MissingExtra, NotFound, Unavailable, from_json
from espalier.core.ports import ChatRequest, Delta, EngineLoad
from espalier.core.types import Spec
from espalier.serve.engines.plan import EnginePlan
from espalier.serve.engines.roster import Roster
from espalier.serve.replicas.frames import Frame, decode_delta, encode_request

_MOST_TRIES = 3
_CHARACTERS_PER_TOKEN = 3


class RayOptions(Spec):
    """`options` of an engine of kind ray."""

    address: str = Field("", description="of a cluster, such as auto or ray://HOST:10001; empty = one on this machine")
    cpus: float = Field(1.0, gt=0, description="cores Ray sets aside for each replica; its engine uses as many threads")
    gpus: float = Field(0.0, ge=0, description="GPUs, or a part of one, for each replica")
    autoscaling: dict[str, float] = Field(
        {}, description="Ray's own AutoscalingConfig besides the numbers of replicas; empty = ours scales"
    )


class ReplicaLost(Exception):
    """The replica that had a request is gone."""


class Cluster(Protocol):
    """What is needed of Ray Serve. `ask` and `call` raise ReplicaLost, `deploy` raises Unavailable."""

    def deploy(self, replicas: int) -> None:
        """Be so many; returns when the first of them answers."""
        ...

    def ask(self, request: Frame, folder: str) -> AsyncIterator[Frame]:
        """The pieces of an answer. Closing the iterator cancels it there."""
        ...

    def call(self, name: str, *arguments: Any) -> Frame: ...

    def remove(self) -> None: ...


class RayServeEngine:
    """Implements core.ports.ModelEngine, with as many replicas as Ray's own autoscaling or `plan` says."""

    def __init__(self, plan: EnginePlan, cluster: Cluster | None = None) -> None:
        self.base = plan.base
        self._plan = plan
        self._cluster = cluster or RayCluster(plan)
        self._wanted = max(1, _fewest(plan))
        self._roster = Roster()
        self._started = False

    def start(self) -> Self:
        """Deploy; returns when a replica answers. Raises Unavailable, MissingExtra."""
        if not self._started:
            self._cluster.deploy(self._wanted)
            self._started = True
        return self

    def stop(self) -> None:
        """Take the deployment away; answers not finished end as `cancelled`."""
        if self._started:
            self._started = False
            self._cluster.remove()

    def load_adapter(self, digest: str, folder: Path) -> None:
        """Have one replica load it, which checks it; the others do when they are asked for it."""
        if digest not in self._roster.digests():
            self._call("load_adapter", digest, str(folder))
            self._roster.add(digest, str(folder))

    def unload_adapter(self, digest: str) -> None:
        """Take no new request for it and wait for those under way; each replica lets it go to make room."""
        self._roster.drain(digest, lambda folder: None)

    def list_adapters(self) -> list[str]:
        """Digests that may be asked."""
        return self._roster.digests()

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """Exact: a replica counts."""
        return int(self._call("count_prompt_tokens", encode_request(request)))

    def load(self) -> EngineLoad:
        """What was asked and has not ended. Who has had no piece yet counts as waiting."""
        return self._roster.load(slots=self._plan.serve.max_batch * self._wanted)

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """Answer one request in pieces. Closing the iterator cancels it on its replica.

        A request whose replica is lost before its first piece is put to another. Raises what the engine there raises,
        and Unavailable.
        """
        if not self._started:
            raise Unavailable("the engine is not running", hint="ask again when it is")
        if request.base not in ("", self.base):
            raise NotFound(f"base {request.base} is not loaded", hint=f"this engine holds {self.base}")
        words = sum(len(message.content) for message in request.messages) // _CHARACTERS_PER_TOKEN
        with self._roster.visit(request.adapter, words + request.sampling.max_tokens * request.sampling.n) as (
            visit,
            folder,
        ):
            for _ in range(_MOST_TRIES):
                try:
                    pieces = cast("Any", self._cluster.ask(encode_request(request), folder))
                    async with aclosing(pieces):
                        async for piece in pieces:
                            if "error" in piece:
                                raise from_json(piece["error"])
                            visit.begun = True
                            yield decode_delta(piece)
                    return
                except ReplicaLost:
                    if not self._started:
                        yield Delta("", "cancelled")
                        return
                    if visit.begun:
                        break
        raise Unavailable("the replica died in the middle of the answer", hint="ask again")

    def _call(self, name: str, *arguments: Any) -> Any:
        for _ in range(_MOST_TRIES):
            try:
                reply = self._cluster.call(name, *arguments)
            except ReplicaLost:
                continue
            if "error" in reply:
                raise from_json(reply["error"])
            return reply["value"]
        raise Unavailable("the replicas keep dying", hint="see Ray's log")


class ScaledRayServeEngine(RayServeEngine):
    """The same, implementing core.ports.Replicated: our autoscaler says how many."""

    def count_replicas(self) -> int:
        """Those wanted: one that died is being replaced."""
        return self._wanted

    def scale(self, replicas: int) -> None:
        """Be so many, at least one. Ray drains those that are too many."""
        self._wanted = max(1, replicas)
        self._cluster.deploy(self._wanted)


class RayCluster:
    """Ray Serve itself, through deployment handles."""

    def __init__(self, plan: EnginePlan) -> None:
        self._plan = plan
        self._options = plan.options(RayOptions)
        self._name = f"espalier-{sha256(plan.base.encode()).hexdigest()[:16]}"
        self._handle: Any = None

    def deploy(self, replicas: int) -> None:
        """`serve.run` again with another number changes nothing else: replicas that are there go on."""
        ray, serve = _import_ray()
        from espalier.serve.engines.rayreplica import EngineReplica

        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing phones home
            os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default, as if an answer were batch work
            local = {} if self._options.address else {"include_dashboard": False}
            ray.init(address=self._options.address or None, log_to_driver=False, configure_logging=False, **local)
        serve.start(proxy_location="Disabled")
        sizes: dict[str, Any] = {"num_replicas": replicas}
        if self._options.autoscaling:
            bounds = {"min_replicas": _fewest(self._plan), "max_replicas": _most(self._plan)}
            sizes = {"autoscaling_config": {**bounds, **self._options.autoscaling}}
        deployment = serve.deployment(EngineReplica, name="engine").options(
            max_ongoing_requests=1024,  # the engine queues, and fairly: Ray must not
            ray_actor_options={"num_cpus": self._options.cpus, "num_gpus": self._options.gpus},
            **sizes,
        )
        settings = self._plan.serve.model_copy(update={"threads": max(1, int(self._options.cpus))})
        bound = deployment.bind(
            self._plan.base, self._plan.place, settings.model_dump(mode="json", exclude={"engines"})
        )
        try:
            self._handle = serve.run(bound, name=self._name, route_prefix=None)
        except RuntimeError as error:  # what Serve raises for a constructor that failed
            raise Unavailable(f"{self._plan.base} could not be deployed: {error}", hint="see Ray's log") from error

    async def ask(self, request: Frame, folder: str) -> AsyncIterator[Frame]:
        """The pieces of an answer, from whichever replica Ray chooses."""
        ray, _ = _import_ray()
        pieces = self._handle.options(stream=True).stream.remote(request, folder)
        ended = False
        try:
            async for piece in pieces:
                yield piece
            ended = True
        except ray.exceptions.RayError as error:
            ended = True
            raise ReplicaLost(str(error)) from error
        finally:
            if not ended:
                pieces.cancel()

    def call(self, name: str, *arguments: Any) -> Frame:
        """One answer of one replica."""
        ray, _ = _import_ray()
        try:
            return cast("Frame", getattr(self._handle, name).remote(*arguments).result())
        except ray.exceptions.RayError as error:
            raise ReplicaLost(str(error)) from error

    def remove(self) -> None:
        """Take our deployment away; what else runs on the cluster stays."""
        _, serve = _import_ray()
        serve.delete(self._name)


def open_ray(plan: EnginePlan) -> RayServeEngine:
    """The entry point: scaled by us, unless `options.autoscaling` gives that to Ray."""
    own = plan.options(RayOptions).autoscaling
    return RayServeEngine(plan) if own else ScaledRayServeEngine(plan)


def _import_ray() -> tuple[Any, Any]:
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise MissingExtra("replicas on Ray need Ray Serve", hint="pip install 'espalier[ray-serve]'") from error
    return ray, serve


def _fewest(plan: EnginePlan) -> int:
    return plan.serve.min_replicas if plan.engine.min_replicas is None else plan.engine.min_replicas


def _most(plan: EnginePlan) -> int:
    return plan.serve.max_replicas if plan.engine.max_replicas is None else plan.engine.max_replicas
