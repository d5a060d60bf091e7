"""Settings: defaults < config file < ESPALIER_* variables < `--set`, each value remembering where it came from.

The file is `.espalier/config.yaml` of the workspace. A variable names a nested key with two underscores:
ESPALIER_SERVE__PORT=8080. Secrets are given by variable only and are shown masked.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, ValidationError

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.faults import refuse
from espalier.core.recipefile import check_recipe, read_yaml, to_plain
from espalier.core.types import Spec

PREFIX = "ESPALIER_"
# Variables that steer the process rather than name a setting.
_NOT_SETTINGS = {"ESPALIER_WORKSPACE", "ESPALIER_API_KEY", "ESPALIER_API_URL"}


class StoreConfig(Spec):
    """Where records and bytes live."""

    url: str = Field("", description="database URL; empty = SQLite in the workspace; postgresql+psycopg://... for many")
    blobs: str = Field("", description="blob store; empty = a folder in the workspace; s3://bucket/prefix")


class EngineConfig(Spec):
    """What answers for a base."""

    kind: str = Field("embedded", description="embedded (this process), replicas, ray, vllm, openai, or a plug-in")
    url: str = Field("", description="a server that runs already; empty = the engine is started here")
    key_env: str = Field("", description="the variable that holds that server's key")
    min_replicas: int | None = Field(None, ge=0, description="for this base; empty = serve.min_replicas")
    max_replicas: int | None = Field(None, ge=1, description="for this base; empty = serve.max_replicas")
    options: dict[str, Any] = Field({}, description="what the kind takes besides, see docs/engines.md")


class SharingConfig(Spec):
    """Who gets how much of an engine when more is asked than it can do; docs/capacity.md."""

    weights: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="share of a flow (a key's id, or a model's name); others have 1"
    )
    max_waiting: int = Field(1024, ge=0, description="answers waiting in all; one more is refused (503)")
    max_waiting_per_flow: int = Field(256, ge=0, description="answers of one flow waiting; one more is refused (429)")
    max_waiting_tokens: int = Field(0, ge=0, description="tokens of all that wait, answers included; 0 = any number")
    max_wait_s: float = Field(60.0, ge=0, description="a request that would wait longer is refused (429); 0 = any time")
    reserved_slack: float = Field(
        1.15, gt=1, le=4, description="a step of reserved requests may become so many times longer by others' tokens"
    )
    reserved_wait_share: float = Field(
        0.15, gt=0, description="while a reservation is idle, a step takes this share of what its next prompt will"
    )
    batch_slack: float = Field(
        1.5, gt=1, le=8, description="a step of interactive requests may become so many times longer by batch tokens"
    )
    capacity_tokens_per_minute: int = Field(
        0, ge=0, description="what reservations on one base may add up to; 0 = as measured by `capacity measure`"
    )


class ServeConfig(Spec):
    """The process that answers: `espalier serve`."""

    host: str = Field("127.0.0.1", description="address to listen on; loopback unless told otherwise")
    port: int = Field(8321, ge=0, le=65535, description="0 picks a free one")
    max_batch: int = Field(32, ge=1, le=512, description="requests decoded together")
    max_context_tokens: int = Field(1024, ge=16, description="prompt and answer together, per request")
    step_budget_tokens: int = Field(512, ge=16, description="tokens computed per engine step")
    reader_patience_s: float = Field(
        60.0, gt=0, description="an answer is cancelled whose reader takes nothing so long"
    )
    threads: int = Field(0, ge=0, description="CPU threads of the engine; 0 = all cores")
    sharing: SharingConfig = SharingConfig()
    engines: dict[str, EngineConfig] = Field(
        {}, description="by base, a trailing * matches the rest: which engine answers; embedded where no row matches"
    )
    web: bool = Field(True, description="also serve the pages, where nicegui is installed")
    worker: bool = Field(True, description="also work on queued jobs")
    memory_bytes: int = Field(0, ge=0, description="what all loaded bases may take; 0 = a share of the machine's")
    idle_s: float = Field(0.0, ge=0, description="unload a base nobody asked for so long; 0 = only to make room")
    max_adapters: int = Field(128, ge=1, description="adapters loaded at once on one base; others wait on disk")
    adapter_memory_bytes: int = Field(1 << 30, ge=0, description="what a base's loaded adapters may take; 0 = any")
    min_replicas: int = Field(1, ge=0, description="processes of a base that are always there; 0 = none while idle")
    max_replicas: int = Field(1, ge=1, description="most processes of one base; 1 = in the server's own")
    target_queue_s: float = Field(1.0, gt=0, description="add a replica when requests wait longer for a slot")
    target_tokens_in_flight: int = Field(8192, ge=1, description="tokens under way that one replica should carry")
    cooldown_up_s: float = Field(10.0, ge=0, description="after adding replicas, add no more for so long")
    cooldown_s: float = Field(120.0, ge=0, description="remove a replica only when so long fewer would have done")


class PriceConfig(Spec):
    """USD per million tokens."""

    prompt: str = Field("0.10", description="what is read, USD per million tokens")
    completion: str = Field("0.40", description="what is answered, USD per million tokens")
    batch: str = Field("1", description="what a batch's requests cost, as a share of it: 0.5 is half")


class GatewayConfig(Spec):
    """Who may ask what, at what cost."""

    require_key: bool = Field(True, description="refuse requests without an API key")
    default_budget_usd: str = Field("10.00", description="budget of a new key")
    requests_per_minute: int = Field(600, ge=1, description="per key")
    prices: dict[str, PriceConfig] = Field(
        default_factory=lambda: {"*": PriceConfig()},
        description="by model name, a trailing * matches the rest; a model without a row is refused under a budget",
    )
    max_body_bytes: int = Field(1 << 20, ge=1024, description="larger requests are refused")
    request_timeout_s: float = Field(600.0, gt=0, description="an answer that takes longer is cut off")
    reader_patience_s: float = Field(
        30.0, gt=0, description="a client that takes nothing of its answer so long is left"
    )


class BatchConfig(Spec):
    """Files of requests that are answered when nobody else asks."""

    max_in_flight: int = Field(64, ge=1, le=4096, description="requests of one batch that are being answered at a time")
    at_once: int = Field(4, ge=1, le=64, description="batches that one process works on at a time")
    max_lines: int = Field(1_000_000, ge=1, description="a file with more is refused")
    max_file_bytes: int = Field(200 << 20, ge=1024, description="a larger upload is refused")
    sync_every_s: float = Field(0.2, gt=0, le=60, description="answers are put on disk in groups this far apart")
    lease_s: float = Field(15.0, ge=1, description="how long after its worker died a batch is taken up by another")
    buckets: dict[str, str] = Field(
        {}, description="what s3://NAME means to Bedrock's routes: a folder of the workspace, or `s3` for the real one"
    )


class PolicyConfig(Spec):
    """What a model version must have before it may be approved."""

    four_eyes: bool = Field(True, description="the approver is not the one who submitted it")
    require_report: bool = Field(True, description="an evaluation report on a held-out split")
    require_dataset: bool = Field(True, description="the dataset version it was trained on")
    min_cases: int = Field(30, ge=0, description="fewest held-out cases a report may rest on")


class TrainConfig(Spec):
    """The machine's share given to training."""

    threads: int = Field(0, ge=0, description="CPU threads; 0 = all cores")


class Config(Spec):
    """Every setting of Espalier."""

    actor: str = Field("", description="who you are; empty = the operating system's user name")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "warning", description="debug: a bug is told with its traceback"
    )
    store: StoreConfig = StoreConfig()
    serve: ServeConfig = ServeConfig()
    gateway: GatewayConfig = GatewayConfig()
    batch: BatchConfig = BatchConfig()
    policy: PolicyConfig = PolicyConfig()
    train: TrainConfig = TrainConfig()


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The settings, and for every key that is not a default, where it came from."""

    config: Config
    origins: Mapping[str, str]  # "serve.port" -> "ESPALIER_SERVE__PORT"


def load_config(
    path: Path | None, *, environ: Mapping[str, str] | None = None, overrides: Iterable[str] = ()
) -> LoadedConfig:
    """Merge all layers; raises InvalidInput naming the file's line, the variable, or the --set that is wrong."""
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if path is not None and path.exists():
        data = read_yaml(path)
        check_recipe(data, Config, path)
        _merge(merged, to_plain(data), str(path), origins)
    for source, key, value in _assignments(os.environ if environ is None else environ, overrides):
        layer = _read_layer(key, value, source)
        _merge(merged, layer, source, origins)
    return LoadedConfig(Config.model_validate(merged), origins)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat.update(flatten(item, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _assignments(environ: Mapping[str, str], overrides: Iterable[str]) -> list[tuple[str, str, str]]:
    """(where from, dotted key, text) of every variable and every --set, weakest first."""
    found = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in _NOT_SETTINGS:
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            if key.split(".")[0] in Config.model_fields:
                found.append((name, key, environ[name]))
            elif "__" in name:
                raise InvalidInput(
                    f"{name} names no setting", hint=did_you_mean(key.split(".")[0], Config.model_fields)
                )
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"--set {text}: no value", hint="write --set serve.port=8080")
        found.append((f"--set {key}", key.strip(), value))
    return found


def _read_layer(key: str, text: str, source: str) -> dict[str, Any]:
    """One assignment as nested settings. JSON gives numbers, booleans and lists; anything else is a string."""
    readings: list[Any] = [text]
    with contextlib.suppress(json.JSONDecodeError):
        readings.insert(0, json.loads(text))
    for value in readings:
        layer: dict[str, Any] = {}
        inner = layer
        *parents, last = key.split(".")
        for part in parents:
            inner = inner.setdefault(part, {})
        inner[last] = value
        try:
            Config.model_validate(layer)
        except ValidationError as error:
            refusal = refuse(error, layer, Config, where=source)
        else:
            return layer
    raise refusal


def _merge(
    into: dict[str, Any], layer: Mapping[str, Any], source: str, origins: dict[str, str], prefix: str = ""
) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(into.get(key, {}), dict):
            _merge(into.setdefault(key, {}), value, source, origins, f"{prefix}{key}.")
        else:
            into[key] = value
            origins[f"{prefix}{key}"] = source
