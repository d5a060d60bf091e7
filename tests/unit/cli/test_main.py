"""The command line as a person meets it: help that teaches, one clear sentence for a mistake, JSON for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import Field

from espalier.cli.main import main
from espalier.core import operations
from espalier.core.errors import GateFailed
from espalier.core.events import Event
from espalier.core.operations import operation
from espalier.core.ports import Delta
from espalier.core.types import Run, Spec
from espalier.services.context import Context
from espalier.store.workspace import init_workspace


class Order(Spec):
    """What to bring."""

    dish: str = Field(description="what to cook")
    guests: int = Field(2, ge=1, description="how many eat")
    sides: tuple[str, ...] = Field((), description="what goes with it")
    labels: dict[str, str] = Field(default_factory=dict, description="notes")
    hot: bool = Field(True, description="warm it")
    fail: bool = Field(False, description="burn it")


class Meal(Spec):
    """What was brought."""

    dish: str
    guests: int
    sides: tuple[str, ...]
    labels: dict[str, str]
    hot: bool
    cost_nusd: int = 12_500_000_000
    by: str


def cook(context: Context, request: Order) -> Meal:
    """Cook a meal.

    Longer words about cooking.

    Example:
        espalier meals cook soup --guests 3
    """
    if request.fail:
        raise GateFailed("it is burnt", hint="turn the heat down", where="oven")
    return Meal(
        dish=request.dish,
        guests=request.guests,
        sides=request.sides,
        labels=request.labels,
        hot=request.hot,
        by=context.actor,
    )


def menu(context: Context, request: Order) -> list[Meal]:
    """List meals."""
    return [] if request.fail else [cook(context, request)] * request.guests


def talk(context: Context, request: Order) -> Iterator[Delta | Event]:
    """Talk about it."""
    for word in request.dish.split():
        yield Delta(word + " ")
    yield Event("ask.finished", {"request": "req_1"})


def feast(context: Context, request: Order) -> Run:
    """Cook for long."""
    if request.fail:
        raise GateFailed("it is burnt", hint="turn the heat down")
    for step in range(1, 5):
        context.emit(Event("train.step", {"step": step, "steps": 4, "loss": 4.0 / step, "tokens_per_s": 1000.0}))
    context.emit(Event("train.done", {}))
    return context.store.runs.update(context.run_id, metrics={"guests": float(request.guests)})


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    operations.load_operations()
    before = dict(operations._TABLE)
    operation("meals.cook", "POST /v1/meals/cook", positional=("dish",))(cook)
    operation("meals.menu", "POST /v1/meals/menu", positional=("dish",))(menu)
    operation("meals.talk", "POST /v1/meals/talk", shape="stream", positional=("dish",))(talk)
    operation("meals.feast", "POST /v1/meals/feast", shape="job", positional=("dish",))(feast)
    yield
    operations._TABLE.clear()
    operations._TABLE.update(before)


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("ESPALIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(init_workspace(tmp_path).root)
    return tmp_path


def test_help_lists_the_commands_in_the_order_of_a_models_life(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"\n  {word} ") for word in ("init", "run", "train", "eval", "models", "serve", "jobs")]
    assert places == sorted(places)
    assert "espalier run recipe.yaml" in shown  # an example


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: espalier" in capsys.readouterr().out


def test_a_commands_help_has_its_example_its_fields_and_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "cook", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "    espalier meals cook soup --guests 3\n" in shown
    assert "how many eat  [default: 2]" in shown
    assert "--hot / --no-hot" in shown and "[default: yes]" in shown
    assert "DISH  what to cook" in shown and "[DISH]" not in shown
    assert shown.index("--guests") < shown.index("Common options") < shown.index("--json")


def test_fields_of_every_kind_are_read_from_flags(capsys: pytest.CaptureFixture[str]) -> None:
    words = "meals cook soup --guests 3 --sides bread --sides salad --labels a=1 --labels b=x=y --no-hot --as bo --json"
    assert main(words.split()) == 0
    assert json.loads(capsys.readouterr().out) == {
        "dish": "soup",
        "guests": 3,
        "sides": ["bread", "salad"],
        "labels": {"a": "1", "b": "x=y"},
        "hot": False,
        "cost_nusd": 12_500_000_000,
        "by": "bo",
    }


def test_common_options_work_before_the_command_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--json", "--as", "bo", "-w", str(tmp_path), "meals", "cook", "soup"]) == 0
    assert json.loads(capsys.readouterr().out)["by"] == "bo"


def test_one_thing_is_shown_as_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "cook", "soup"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "dish       soup" in lines and "hot        yes" in lines
    assert "cost_nusd  $12.50" in lines  # the unit in the name decides


def test_a_list_is_shown_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "menu", "soup"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["DISH", "GUESTS", "HOT"]
    assert len(rows) == 2 and rows[0].split()[:3] == ["soup", "2", "yes"]


def test_an_empty_list_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "menu", "soup", "--fail"]) == 0
    assert capsys.readouterr().out == "none\n"


def test_a_stream_is_printed_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "talk", "hot soup"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "hot soup \n"
    assert "espalier trace req_1" in shown.err


def test_a_stream_as_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "talk", "hot soup", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("text", line.get("kind")) for line in lines] == ["hot ", "soup ", "ask.finished"]


def test_a_job_runs_here_with_its_progress_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "feast", "soup"]) == 0
    shown = capsys.readouterr()
    assert "succeeded" in shown.out and "guests" in shown.out
    assert "step 4/4" in shown.err and "loss 4.000 █" in shown.err
    assert "loss" not in shown.out


def test_quiet_and_json_print_results_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "feast", "soup", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["meals", "feast", "soup", "--json"]) == 0
    shown = capsys.readouterr()
    assert (json.loads(shown.out)["status"], shown.err) == ("succeeded", "")


def test_a_job_can_be_left_to_a_worker(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "feast", "soup", "--detach", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert run["status"] == "queued"
    assert main(["jobs", "show", run["id"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "queued"


def test_an_error_is_a_sentence_a_next_step_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "cook", "soup", "--fail"]) == GateFailed.exit_code
    shown = capsys.readouterr()
    assert shown.err == "error: oven: it is burnt\nnext: turn the heat down\n"
    assert shown.out == ""
    assert main(["meals", "feast", "soup", "--fail"]) == GateFailed.exit_code
    assert "it is burnt" in capsys.readouterr().err


def test_an_error_as_json_has_the_shape_every_face_sends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meals", "cook", "soup", "--fail", "--json"]) == GateFailed.exit_code
    assert json.loads(capsys.readouterr().err)["error"] == {
        "code": "gate_failed",
        "message": "it is burnt",
        "hint": "turn the heat down",
        "where": "oven",
    }


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("meels cook soup", "no command `espalier meels`", "did you mean `meals`?"),
        ("meals coook soup", "no command `espalier meals coook`", "did you mean `cook`?"),
        ("meals cook", "missing argument 'DISH'", "`espalier meals cook --help`"),
        ("meals cook soup --gests 3", "no such option: --gests", "--guests"),
        ("meals cook soup --guests many", "'many' is not a valid integer", "--help"),
        ("meals cook soup --guests 0", "guests: must be at least 1 (got 0)", "meals cook --help"),
        ("meals cook soup --labels a", "'a' is not key=value", "--help"),
        ("meals cook soup --labels a=1 --labels a=2", "--labels says twice what a is", "once"),
        ("meals cook soup --guests", "'--guests' requires an argument", "`espalier meals cook --help`"),
        ("batch list --limit 0", "limit: must be at least 1 (got 0)", "`espalier batch list --help`"),
        ("train recipe.yaml", "dataset: missing", "`espalier train --help`"),
        ("train recipe.yaml --bogus", "no such option: --bogus", "`espalier train --help`"),
        ("jobs list --set serve.prt=1", "serve.prt: unknown key", "did you mean `port`?"),
        ("serve --set serve.engines.hf:*.kind=vlm", "there is no engine of kind 'vlm'", "did you mean `vllm`?"),
        ("jobs list -w nowhere", "no folder nowhere", "--workspace"),
        ("runs show run_x", "no run run_x", "espalier runs list"),
    ],
)
def test_a_mistake_gets_one_clear_sentence_and_a_hint(
    capsys: pytest.CaptureFixture[str], words: str, said: str, hint: str
) -> None:
    assert main(words.split()) in (2, 3)
    shown = capsys.readouterr()
    first, *rest = shown.err.splitlines()
    assert first.startswith("error: ") and said in first
    assert any(line.startswith("next: ") and hint in line for line in rest), shown.err
    assert "Traceback" not in shown.err and shown.out == ""


def test_outside_a_workspace_the_next_step_is_init(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("bare"))
    assert main(["jobs", "list"]) == 3
    assert "espalier init" in capsys.readouterr().err
    assert main(["config", "show", "serve.port"]) == 0  # what needs no workspace works without one


def test_a_full_disk_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(context: Context, request: Order) -> Meal:
        """Fill the disk."""
        raise OSError(28, "No space left on device", "/data/x")

    operation("meals.full", "POST /v1/meals/full", positional=("dish",))(full)
    assert main(["meals", "full", "soup"]) == 10
    assert "/data/x: the disk is full" in capsys.readouterr().err


def test_a_bug_is_owned_up_to(capsys: pytest.CaptureFixture[str]) -> None:
    def bug(context: Context, request: Order) -> Meal:
        """Stumble."""
        raise ZeroDivisionError("oh")

    operation("meals.bug", "POST /v1/meals/bug", positional=("dish",))(bug)
    assert main(["meals", "bug", "soup"]) == 1
    assert "this is a bug" in capsys.readouterr().err
    assert main(["meals", "bug", "soup", "--set", "log_level=debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_ends_with_130_and_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def stop(context: Context, request: Order) -> Meal:
        """Stop."""
        raise KeyboardInterrupt

    operation("meals.stop", "POST /v1/meals/stop", positional=("dish",))(stop)
    assert main(["meals", "stop", "soup"]) == 130
    assert "same command again" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m espalier.cli.main config schema recipe | head -c 10"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout[:1]) == ("", "{")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    assert "_ESPALIER_COMPLETE" in capsys.readouterr().out


def test_completion_knows_commands_and_options(tmp_path: Path) -> None:
    environ = {**os.environ, "_ESPALIER_COMPLETE": "bash_complete", "COMP_WORDS": "espalier jobs l", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "espalier.cli.main"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,list", "plain,logs"]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("espalier 0.")
