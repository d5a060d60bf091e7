"""Settings: four layers, each value with its origin; a wrong one is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier.core.config import Config, flatten, load_config
from espalier.core.errors import InvalidInput


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("actor: ada\nserve:\n  port: 9000\n  host: 127.0.0.1\n")
    return path


def test_each_layer_overrides_the_one_below_and_leaves_its_origin(file: Path) -> None:
    loaded = load_config(
        file, environ={"ESPALIER_SERVE__PORT": "9001", "PATH": "/bin"}, overrides=["serve.max_batch=4"]
    )
    assert (loaded.config.actor, loaded.config.serve.port, loaded.config.serve.max_batch) == ("ada", 9001, 4)
    assert loaded.config.serve.max_context_tokens == Config().serve.max_context_tokens
    assert loaded.origins["serve.port"] == "ESPALIER_SERVE__PORT"
    assert loaded.origins["serve.max_batch"] == "--set serve.max_batch"
    assert loaded.origins["actor"] == str(file)
    assert "serve.threads" not in loaded.origins


def test_a_missing_file_leaves_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none.yaml", environ={}).config == Config()


def test_a_misspelt_key_is_refused_with_line_column_and_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("actor: ada\nserve:\n  prot: 9000\n")
    with pytest.raises(InvalidInput) as caught:
        load_config(path, environ={})
    assert caught.value.where == f"{path}:3:3"
    assert caught.value.message == "serve.prot: unknown key"
    assert caught.value.hint == "did you mean `port`?"


def test_broken_yaml_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("actor: [ada\nserve: {}\n")
    with pytest.raises(InvalidInput, match="not YAML") as caught:
        load_config(path, environ={})
    assert caught.value.where.startswith(f"{path}:2:")


@pytest.mark.parametrize(
    ("environ", "overrides", "where"),
    [
        ({"ESPALIER_SERVE__PORT": "many"}, [], "ESPALIER_SERVE__PORT"),
        ({}, ["serve.port=-1"], "--set serve.port"),
        ({}, ["serve.prot=1"], "--set serve.prot"),
    ],
)
def test_a_wrong_value_names_the_layer_it_came_from(environ: dict[str, str], overrides: list[str], where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_config(None, environ=environ, overrides=overrides)
    assert caught.value.where == where


def test_a_variable_that_names_no_setting_is_refused_not_ignored() -> None:
    with pytest.raises(InvalidInput, match="names no setting"):
        load_config(None, environ={"ESPALIER_SERV__PORT": "1"})


def test_a_number_stays_a_string_where_the_setting_is_one() -> None:
    assert load_config(None, environ={"ESPALIER_ACTOR": "42"}).config.actor == "42"


def test_flattening_names_every_setting_once() -> None:
    flat = flatten(Config().model_dump())
    assert flat["serve.port"] == 8321
    assert flat["gateway.prices.*.prompt"] == "0.10"
