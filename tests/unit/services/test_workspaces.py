"""Making a workspace, its settings, the schemas, and the doctor."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from espalier.core.errors import InvalidInput, NotFound, PermissionDenied
from espalier.core.recipefile import read_yaml, to_plain
from espalier.core.types import Principal
from espalier.pipeline.graph import load_pipeline
from espalier.pipeline.lint import lint
from espalier.services.context import open_context
from espalier.services.doctor import CheckMachine, MachineReport, doctor
from espalier.services.schemas import make_schema
from espalier.services.workspaces import InitWorkspace, ShowConfig, init, show_config


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPALIER_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)


def test_init_makes_a_workspace_with_a_recipe_that_lints(tmp_path: Path) -> None:
    made = init(open_context(), InitWorkspace(folder=Path("project")))
    assert made.written == (".espalier/", "recipe.yaml", "examples/orders.jsonl")
    assert lint(load_pipeline(tmp_path / "project" / "recipe.yaml")) == []
    assert open_context(tmp_path / "project").workspace.root == tmp_path / "project"


def test_init_again_changes_nothing(tmp_path: Path) -> None:
    init(open_context(), InitWorkspace())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("mine: yes\n")
    again = init(open_context(), InitWorkspace())
    assert again.written == () and "recipe.yaml" in again.kept
    assert recipe.read_text() == "mine: yes\n"


def test_init_without_a_starter_writes_no_recipe(tmp_path: Path) -> None:
    init(open_context(), InitWorkspace(starter=False))
    assert [path.name for path in tmp_path.iterdir()] == [".espalier"]


def test_a_context_finds_its_workspace_upwards_and_outside_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        _ = open_context(tmp_path).store
    assert "espalier init" in caught.value.hint
    init(open_context(), InitWorkspace())
    below = tmp_path / "examples"
    assert open_context(below).workspace.root == tmp_path


def test_the_actor_is_the_nearest_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(open_context(), InitWorkspace())
    assert open_context().actor  # the operating system's user
    (tmp_path / ".espalier" / "config.yaml").write_text("actor: from-file\n")
    assert open_context().actor == "from-file"
    monkeypatch.setenv("ESPALIER_ACTOR", "from-variable")
    assert open_context().actor == "from-variable"
    assert open_context(actor="given").actor == "given"


def test_a_lower_role_is_held(tmp_path: Path) -> None:
    context = open_context().acting_as(Principal(actor="uma", role="approver"))
    context.require("user")
    context.require("approver")
    with pytest.raises(PermissionDenied, match="uma has the role approver, this needs admin"):
        context.require("admin")


def test_a_setting_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(open_context(), InitWorkspace())
    (tmp_path / ".espalier" / "config.yaml").write_text("serve:\n  port: 1\n  threads: 3\n")
    monkeypatch.setenv("ESPALIER_SERVE__PORT", "2")
    shown = show_config(open_context(overrides=["serve.host=::1"]), ShowConfig(key="serve", origins=True))
    origins = {setting.key: (setting.value, setting.origin) for setting in shown.settings}
    assert origins["serve.port"] == (2, "ESPALIER_SERVE__PORT")
    assert origins["serve.threads"] == (3, str(tmp_path / ".espalier" / "config.yaml"))
    assert origins["serve.host"] == ("::1", "--set serve.host")
    assert origins["serve.max_batch"] == (32, "default")


def test_a_password_in_a_url_is_not_shown() -> None:
    context = open_context(overrides=["store.url=postgresql+psycopg://ada:hush@db/espalier"])
    (setting,) = show_config(context, ShowConfig(key="store.url")).settings
    assert setting.value == "postgresql+psycopg://********@db/espalier"


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(NotFound) as caught:
        show_config(open_context(), ShowConfig(key="serve.prt"))
    assert "serve.port" in caught.value.hint


def test_the_recipe_schema_takes_the_recipes_we_ship_and_refuses_a_misspelt_key() -> None:
    import espalier.recipes as shipped

    schema = make_schema("recipe")
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for path in Path(str(shipped.__path__[0])).glob("*.yaml"):
        recipe = to_plain(read_yaml(path))
        assert [error.message for error in validator.iter_errors(recipe)] == [], path
        steps: dict[str, Any] = recipe["steps"]
        training = next(node for node in steps.values() if node["step"] == "train.sft")
        training["with"]["epoch"] = 3
        assert any("epoch" in error.message for error in validator.iter_errors(recipe))


@pytest.mark.parametrize("what", ["config", "data", "create", "sft", "eval"])
def test_each_part_has_a_valid_schema(what: str) -> None:
    schema = make_schema(what)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False and schema["properties"]


def examine(*overrides: str, base: str = "builtin:seedling") -> MachineReport:
    return doctor(open_context(overrides=overrides), CheckMachine(base=base))


def test_the_doctor_looks_at_everything_and_says_what_to_do(tmp_path: Path) -> None:
    init(open_context(), InitWorkspace())
    report = examine()
    found = {check.name: check for check in report.checks}
    assert {"python", "cores", "memory", "disk", "gpu", "base model", "port", "workspace", "store"} <= set(found)
    assert found["store"].found.startswith("SQLite")
    assert all(check.next for check in report.checks if check.status != "ok")
    assert report.exit_code == int(any(check.status == "fail" for check in report.checks))


def test_the_doctor_fails_for_a_base_that_is_not_there_and_warns_of_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        report = examine(f"serve.port={taken.getsockname()[1]}", base="path:nowhere")
    found = {check.name: check for check in report.checks}
    assert (found["base model"].status, report.exit_code) == ("fail", 1)
    assert found["port"].status == "warn" and "serve.port=0" in found["port"].next
    assert "x base model" in report.to_text() and "next: " in report.to_text()


def test_the_doctor_reports_a_broken_database(tmp_path: Path) -> None:
    init(open_context(), InitWorkspace())
    (tmp_path / ".espalier" / "espalier.db").write_bytes(b"not a database" * 100)
    found = {check.name: check for check in examine().checks}
    assert found["store"].status == "fail"


def test_a_setting_of_the_wrong_type_is_refused_with_its_source() -> None:
    with pytest.raises(InvalidInput) as caught:
        open_context(overrides=["serve.port=many"])
    assert caught.value.where == "--set serve.port"
    assert json.dumps(caught.value.to_json())
