"""What containers are made of, checked where no engine for them runs: parsed, validated against schemas, cross-checked.

Nothing here builds or starts an image.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from compose_spec import PyCompose
from dockerfile_parse import DockerfileParser
from ruamel.yaml import YAML

from espalier.core.config import load_config

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "cuda", "worker")
OLDEST, NEWEST = "1.32", "1.37"  # of Kubernetes, that the manifests are held against
_SECRET = re.compile(r"(PASSWORD|TOKEN|SECRET|API_KEY|PASSWD|CREDENTIAL)", re.IGNORECASE)

kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl, which brings Kustomize")


# Dockerfile


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The Dockerfile's instructions in order; `stage` says which stage each stands in, from 0 before the first."""
    parser = DockerfileParser(path=str(tmp_path_factory.mktemp("docker")))  # it writes where it is pointed to
    parser.content = (ROOT / "Dockerfile").read_text("utf-8")
    found, stage = [], 0
    for step in parser.structure:
        stage += step["instruction"] == "FROM"
        if step["instruction"] != "COMMENT":
            found.append({**step, "stage": stage})
    return found


def _stages(steps: list[dict[str, Any]]) -> dict[str, tuple[int, str]]:
    """Stage -> (its number, what it is made from)."""
    lines = [(step["stage"], step["value"].split()) for step in steps if step["instruction"] == "FROM"]
    return {words[2]: (number, words[0]) for number, words in lines}


def _of(steps: list[dict[str, Any]], stage: str, instruction: str) -> list[str]:
    """The values of an instruction in a stage and the stages it is made from, the nearest first."""
    stages = _stages(steps)
    found: list[str] = []
    while stage in stages:
        number, parent = stages[stage]
        own = [s["value"] for s in steps if s["stage"] == number and s["instruction"] == instruction]
        found += reversed(own)
        stage = parent
    return found


def test_every_image_is_pinned_by_its_tag(steps: list[dict[str, Any]]) -> None:
    defaults = dict(
        step["value"].split("=", 1) for step in steps if step["instruction"] == "ARG" and step["stage"] == 0
    )
    stages = _stages(steps)
    for parent in (made_from for _, made_from in stages.values()):
        if parent not in stages:
            image = re.sub(r"\$\{(\w+)\}", lambda name: defaults[name[1]], parent)
            assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", image), image


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_runs_as_nobody_in_particular_and_says_whether_it_is_well(
    steps: list[dict[str, Any]], target: str
) -> None:
    user = _of(steps, target, "USER")[0]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "a number, so that Kubernetes can tell it is not root"
    (health,) = _of(steps, target, "HEALTHCHECK")
    assert "/healthz" in health and " CMD [" in health
    assert all(value.startswith("[") for value in _of(steps, target, "ENTRYPOINT")), "a shell would swallow SIGTERM"


def test_the_last_stage_is_the_one_that_needs_no_gpu(steps: list[dict[str, Any]]) -> None:
    assert list(_stages(steps))[-1] == "cpu"


def test_every_file_that_is_copied_exists_and_gets_past_dockerignore(steps: list[dict[str, Any]]) -> None:
    patterns = [
        line.strip()
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    for step in steps:
        if step["instruction"] not in ("COPY", "ADD"):
            continue
        words = shlex.split(step["value"])
        flags = [word for word in words if word.startswith("--")]
        *sources, _ = [word for word in words if not word.startswith("--")]
        if any(flag.startswith("--from=") for flag in flags):
            assert next(f for f in flags if f.startswith("--from=")).removeprefix("--from=") in _stages(steps)
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert not _is_ignored(source, patterns), f"{source} is not in the build's context"


def test_nothing_of_the_workspace_or_of_git_gets_into_a_build() -> None:
    patterns = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for name in (".git", ".env", ".venv", ".espalier", "tests", "deploy/secrets"):
        assert _is_ignored(name, [p.strip() for p in patterns if p.strip() and not p.startswith("#")]), name


def test_no_secret_is_given_to_a_build_or_kept_in_a_layer(steps: list[dict[str, Any]]) -> None:
    for step in steps:
        if step["instruction"] in ("ARG", "ENV"):
            assert not _SECRET.search(step["value"]), step["value"]


def test_whatever_is_installed_is_held_to_our_versions(steps: list[dict[str, Any]]) -> None:
    installs = [s["value"] for s in steps if s["instruction"] == "RUN" and "pip install" in s["value"]]
    assert len(installs) == 4
    assert all("--constraint constraints.txt" in line for line in installs)
    torch = [line for line in installs if line.endswith(" torch")]
    assert ["CPU_INDEX" in line for line in torch] == [True, False]


def test_every_setting_an_image_brings_is_one(steps: list[dict[str, Any]]) -> None:
    pairs = [pair for target in ("cpu", "cuda") for value in _of(steps, target, "ENV") for pair in shlex.split(value)]
    told = dict(pair.split("=", 1) for pair in pairs)
    loaded = load_config(None, environ={name: value for name, value in told.items() if name.startswith("ESPALIER_")})
    assert (loaded.config.serve.host, loaded.config.serve.port) == ("0.0.0.0", 8321)


def test_a_container_makes_its_volume_a_workspace_once_and_becomes_the_command(tmp_path: Path) -> None:
    workspace, told = tmp_path / "workspace", tmp_path / "told"
    command = tmp_path / "bin" / "espalier"
    command.parent.mkdir()
    # Stands for ours, which takes seconds to start; that it takes these words is the next test's.
    command.write_text(f'#!/bin/sh\necho "$@" >> {told}\n[ "$1" = init ] && mkdir -p "$3/.espalier"\nexit 0\n')
    command.chmod(0o755)
    environ = {"ESPALIER_WORKSPACE": str(workspace), "PATH": f"{command.parent}:{os.environ['PATH']}"}
    for _ in range(2):
        subprocess.run(["sh", str(ROOT / "deploy" / "start.sh"), "serve", "--cold"], env=environ, check=True)
    assert told.read_text().splitlines() == [f"init --no-starter {workspace}", "serve --cold", "serve --cold"]


def test_the_words_the_start_uses_are_understood(tmp_path: Path) -> None:
    (words,) = re.findall(
        r"^ *espalier (init .*) >&2$", (ROOT / "deploy" / "start.sh").read_text("utf-8"), re.MULTILINE
    )
    arguments = [str(tmp_path) if word == "$ESPALIER_WORKSPACE" else word for word in shlex.split(words)]
    command = Path(sys.executable).with_name("espalier")
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".espalier").is_dir()


# Compose


def _interpolate(text: str) -> str:
    """Defaults where there are some, and a value where one is demanded, as `docker compose config` fills them in."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    return re.sub(r"\$\{\w+:\?[^}]*\}", "given", text)


def _read(name: str) -> dict[str, Any]:
    # Comments may say ${...} too; YAML's merge keys are expanded by the safe loader.
    return dict(YAML(typ="safe").load(_interpolate((ROOT / name).read_text("utf-8"))))


def _validate_compose(content: dict[str, Any]) -> None:
    PyCompose.from_json(json.dumps(content)).validate()


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_the_compose_file_is_one(name: str) -> None:
    _validate_compose(_read(name))


def test_the_control_a_word_that_is_none_is_refused() -> None:
    content = _read("compose.yaml")
    content["services"]["server"]["restartt"] = "always"
    with pytest.raises(Exception, match="restartt"):
        _validate_compose(content)


def test_only_loopback_is_listened_on_and_the_database_not_even_there() -> None:
    services = _read("compose.yaml")["services"]
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", []))
    assert "ports" not in services["database"]
    assert services["database"]["networks"] == ["inside"]


@pytest.mark.parametrize("name", ["server", "worker"])
def test_a_service_of_ours_may_write_to_its_volumes_only_and_has_limits(name: str) -> None:
    service = _read("compose.yaml")["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    limits = service["deploy"]["resources"]["limits"]
    assert float(limits["cpus"]) > 0 and limits["memory"]
    assert service["depends_on"] == {"database": {"condition": "service_healthy"}}
    settings = {key: str(value) for key, value in service["environment"].items()}
    config = load_config(None, environ=settings).config
    assert config.store.url.startswith("postgresql+psycopg://")
    assert {config.serve.threads, config.train.threads, int(settings["OMP_NUM_THREADS"])} == {int(limits["cpus"])}


def test_the_server_is_well_when_it_is_ready_and_the_database_when_it_answers() -> None:
    services = _read("compose.yaml")["services"]
    assert "/readyz" in services["server"]["healthcheck"]["test"][-1]
    assert "pg_isready" in services["database"]["healthcheck"]["test"]


def test_no_password_stands_in_a_file() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    given = re.findall(r"POSTGRES_PASSWORD: (.*)", text) + re.findall(r"espalier:(\$?[^@\s]*)@", text)
    assert given and all(value.startswith("${ESPALIER_DATABASE_PASSWORD:?") for value in given)
    assert ".env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_volumes_and_networks_are_declared_and_images_pinned() -> None:
    content = _read("compose.yaml")
    for service in content["services"].values():
        assert {volume.split(":")[0] for volume in service["volumes"]} <= set(content["volumes"])
        assert set(service["networks"]) <= set(content["networks"])
        assert re.fullmatch(r"espalier:(cpu|cuda)|[\w./-]+:\d+\.\d+[\w.-]*", service["image"])
        assert service.get("build", {}).get("target", "cpu") in ("cpu", "cuda")


# Kubernetes


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / "overlays" / request.param)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [dict(each) for each in YAML(typ="safe").load_all(done.stdout)]


def _pick(manifests: list[dict[str, Any]], *kinds: str) -> Iterator[dict[str, Any]]:
    return (each for each in manifests if each["kind"] in kinds)


def _pods(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each["spec"]["template"] for each in _pick(manifests, "StatefulSet", "Deployment")]


@kubectl
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_manifest_is_valid_to_the_last_field(manifests: list[dict[str, Any]], version: str) -> None:
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


@kubectl
def test_the_control_a_field_that_is_none_is_refused(manifests: list[dict[str, Any]]) -> None:
    broken = dict(manifests[0], spek={})
    with pytest.raises(kubernetes_validate.ValidationError, match="spek"):
        kubernetes_validate.validate(broken, NEWEST, strict=True)


@kubectl
def test_a_pod_has_no_right_it_does_not_need(manifests: list[dict[str, Any]]) -> None:
    for pod in _pods(manifests):
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"])
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip


@kubectl
def test_a_pod_is_the_user_the_image_was_made_for(manifests: list[dict[str, Any]], steps: list[dict[str, Any]]) -> None:
    uid = int(_of(steps, "cpu", "USER")[0].split(":")[0])
    for pod in _pods(manifests):
        context = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["fsGroup"]) == (uid, uid)


@kubectl
def test_a_pod_is_probed_on_routes_the_gateway_has_and_limited(manifests: list[dict[str, Any]]) -> None:
    from espalier.gateway import app

    source = Path(app.__file__).read_text("utf-8")
    for pod in _pods(manifests):
        for container in pod["spec"]["containers"]:
            probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
            assert (probes["liveness"]["path"], probes["readiness"]["path"]) == ("/healthz", "/readyz")
            assert all(f'"{probe["path"]}"' in source for probe in probes.values())
            assert {probe["port"] for probe in probes.values()} <= {port["name"] for port in container["ports"]}
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][bound])


@kubectl
def test_a_pod_starts_as_many_threads_as_it_may_have_cores(manifests: list[dict[str, Any]]) -> None:
    for pod in _pods(manifests):
        told = {each["name"]: each.get("valueFrom", {}) for each in pod["spec"]["containers"][0]["env"]}
        for name in ("OMP_NUM_THREADS", "ESPALIER_SERVE__THREADS", "ESPALIER_TRAIN__THREADS"):
            assert told[name] == {"resourceFieldRef": {"resource": "limits.cpu"}}


@kubectl
def test_whatever_is_mounted_is_a_volume_and_the_images_paths_are_mounted(
    manifests: list[dict[str, Any]], steps: list[dict[str, Any]]
) -> None:
    brought = dict(pair.split("=", 1) for value in _of(steps, "cpu", "ENV") for pair in shlex.split(value))
    for workload in _pick(manifests, "StatefulSet"):
        pod = workload["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in workload["spec"]["volumeClaimTemplates"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert set(mounts.values()) == volumes
        for name in ("ESPALIER_WORKSPACE", "HF_HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
            assert any(brought[name].startswith(path) for path in mounts), f"{name} would be read-only"


@kubectl
def test_selectors_find_the_pods_they_mean(manifests: list[dict[str, Any]]) -> None:
    labels = [pod["metadata"]["labels"] for pod in _pods(manifests)]
    selectors = [each["spec"]["selector"] for each in _pick(manifests, "Service")]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in _pick(manifests, "NetworkPolicy")]
    selectors += [
        each["spec"]["selector"]["matchLabels"] for each in _pick(manifests, "PodDisruptionBudget", "StatefulSet")
    ]
    for selector in selectors:
        assert sum(selector.items() <= own.items() for own in labels) == 1, selector
    guarded = [each["spec"]["podSelector"]["matchLabels"] for each in _pick(manifests, "NetworkPolicy")]
    assert all(any(selector.items() <= own.items() for selector in guarded) for own in labels)


@kubectl
def test_what_scales_is_there_and_nobody_else_says_how_many(manifests: list[dict[str, Any]]) -> None:
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in manifests}
    (scaler,) = _pick(manifests, "HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    assert "replicas" not in by_name[(target["kind"], target["name"])]["spec"]
    assert 1 <= scaler["spec"]["minReplicas"] < scaler["spec"]["maxReplicas"]
    assert scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


@kubectl
def test_secrets_are_named_and_never_written(manifests: list[dict[str, Any]]) -> None:
    assert not list(_pick(manifests, "Secret"))
    for pod in _pods(manifests):
        for variable in pod["spec"]["containers"][0]["env"]:
            if variable["name"] == "ESPALIER_STORE__URL":
                assert variable["valueFrom"]["secretKeyRef"] == {"name": "espalier-store", "key": "url"}
            else:
                assert not _SECRET.search(variable["name"])


@kubectl
def test_every_setting_is_one_and_several_servers_share_their_bytes(manifests: list[dict[str, Any]]) -> None:
    (settings,) = _pick(manifests, "ConfigMap")
    loaded = load_config(None, environ=settings["data"])
    assert loaded.config.store.blobs.startswith("s3://")
    for pod in _pods(manifests):
        container = pod["spec"]["containers"][0]
        assert {"configMapRef": {"name": settings["metadata"]["name"]}} in container["envFrom"]
        own = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        assert load_config(None, environ=own)


@kubectl
def test_images_are_ours_and_pinned_and_a_gpu_is_asked_for_where_one_is_used(manifests: list[dict[str, Any]]) -> None:
    for pod in _pods(manifests):
        container = pod["spec"]["containers"][0]
        kind = re.fullmatch(r"espalier:\d+\.\d+\.\d+-(cpu|cuda)", container["image"])
        assert kind, container["image"]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (kind[1] == "cuda")


def _is_ignored(name: str, patterns: list[str]) -> bool:
    """As Docker reads .dockerignore: the last pattern that matches the path, or a folder above it, decides."""
    ignored = False
    parts = name.split("/")
    for pattern in patterns:
        wanted = pattern.lstrip("!").removeprefix("**/")
        paths = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        below = pattern.startswith("!") and wanted.startswith(f"{name}/")
        if below or any(fnmatch.fnmatch(path, wanted) for path in paths):
            ignored = not pattern.startswith("!")
    return ignored
