"""`espalier demo`: one model's whole life on made-up tickets, told as it happens.

It does nothing that a user could not: every act is an operation of the SDK, a command, or a request of the `openai`
client.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from espalier.cli.options import Options
from espalier.core.errors import EspalierError, MissingExtra, Unavailable
from espalier.core.types import ModelVersion, Run
from espalier.sdk.client import Client

_SUBMITTER, _APPROVER = "ada", "grace"
_MODEL, _PROMPT = "support", "support-dossier"
_START_TIMEOUT_S = 60


def run_demo(folder: Path, *, seed: int, files: int, options: Options) -> int:
    """Tell the story; returns the exit code. Raises what any of its acts raises."""
    _require_openai()
    started_s = time.monotonic()
    folder = _make_folder(folder, seed, files)
    with Client(folder, actor=_SUBMITTER, overrides=options.settings) as submitter:
        run = _run_pipeline(submitter, options)
        _show_comparison(submitter, run, options)
        version = _approve(submitter, folder, options)
        answer = _ask(submitter, folder, options)
        _heading("Back from the answer to the pages", options)
        trace = submitter.inference.trace(request=answer["id"], documents=3)
        click.echo("" if options.as_json else trace.to_text())
    took_s = time.monotonic() - started_s
    if options.as_json:
        report = {"run": run.id, "model": version.ref, "request": answer["id"], "seconds": round(took_s, 1)}
        click.echo(json.dumps(report | {"metrics": answer["fields"]}))
    else:
        _close(folder, version, took_s)
    return 0


def _require_openai() -> None:
    try:
        import openai  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("the demo asks through the openai client", hint="pip install 'espalier[demo]'") from error


def _make_folder(folder: Path, seed: int, files: int) -> Path:
    """The company's folder and workspace; one that is there already is gone on with."""
    from espalier.services.datasets import write_sample
    from espalier.store.workspace import init_workspace

    marker = folder / "demo.json"
    wanted = {"seed": seed, "files": files}
    if marker.exists() and json.loads(marker.read_bytes()) == wanted:
        click.echo(f"Going on in {folder}")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not marker.exists():
            raise EspalierError(f"{folder} holds something else", hint="name another with --folder")
        written = write_sample(folder, seed, files)
        marker.write_text(json.dumps(wanted), "utf-8")
        click.echo(
            f"Made up Larkspur Instruments in {folder}: {written.files} files, {written.tickets} support tickets"
        )
    init_workspace(folder)
    return folder.resolve()


def _run_pipeline(client: Client, options: Options) -> Run:
    from espalier.cli.live import watch_run

    _heading("From documents to a tuned model: support.yaml, step by step", options)
    handle = client.pipelines.run(recipe="support.yaml")
    with watch_run(options) as on_event:
        run: Run = handle.wait(on_event)
    return run


def _show_comparison(client: Client, run: Run, options: Options) -> None:
    if options.as_json:
        return
    _heading("Before and after, on tickets the model never saw", options)
    table = client.evals.table(run=run.id)
    widths = [max(len(row[i]) for row in (table.columns, *table.rows)) for i in range(len(table.columns))]
    for row in (table.columns, *table.rows):
        click.echo("  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo(f"  {table.caption}")


def _approve(submitter: Client, folder: Path, options: Options) -> ModelVersion:
    """A second person looks at the policy's clauses and approves; the alias follows."""
    _heading("Four eyes", options)
    version: ModelVersion = submitter.models.show(ref=_MODEL).version
    say = (lambda text: None) if options.as_json else click.echo
    say(f"{version.ref} is {version.status}, submitted by {version.submitted_by}")
    with Client(folder, actor=_APPROVER, overrides=options.settings) as approver:
        for clause in approver.models.show(ref=version.ref).clauses:
            say(f"  {'ok ' if clause.ok else 'NO '} {clause.name:<16} {clause.why}")
        if version.status == "PendingManualApproval":
            version = approver.models.approve(ref=version.ref, comment="read the report")
            say(f"{_APPROVER} approved {version.ref}")
        moved = approver.models.promote(ref=version.ref, alias="production")
        say(f"{_MODEL}@{moved.alias} -> {moved.ref}")
    return version


def _ask(client: Client, folder: Path, options: Options) -> dict[str, Any]:
    """One held-out ticket through the openai client, streamed."""
    import openai

    from espalier.metrics.metric import Answered
    from espalier.metrics.xml import xml_fields

    _heading("A question through the openai client", options)
    example = client.datasets.show(ref="support", examples=1, split="test").examples[0]
    ticket, reference = example["messages"][0]["content"], example["messages"][-1]["content"]
    rendered = client.prompts.render(ref=_PROMPT, input=ticket)
    key = client.keys.create(name="demo", budget_usd="1.00")
    with _server(folder, options) as url:
        if not options.as_json:
            click.echo(f"{url}/v1  model support@production\n\n{click.style(ticket, dim=True)}\n")
        api = openai.OpenAI(base_url=f"{url}/v1", api_key=key.secret)
        stream = api.chat.completions.create(
            model="support@production",
            messages=[{"role": turn.role, "content": turn.content} for turn in rendered.messages],
            max_tokens=200,
            stream=True,
        )
        pieces, id = [], ""
        for chunk in stream:
            id = chunk.id
            for choice in chunk.choices:
                pieces.append(choice.delta.content or "")
                if not options.as_json:
                    click.echo(pieces[-1], nl=False)
    measured = xml_fields().measure(Answered(example["id"], "".join(pieces), reference))
    if not options.as_json:
        right = sum(measured.parts.values())
        click.echo(f"\n\n{right:.0f} of {len(measured.parts)} fields as the back office wrote them.")
    return {"id": id, "fields": dict(measured.parts)}


@contextmanager
def _server(folder: Path, options: Options) -> Iterator[str]:
    """`espalier serve` in a process of its own, on a free port; yields its address."""
    command = [sys.executable, "-m", "espalier.cli.main", "serve", "--json", "--workspace", str(folder)]
    command += ["--set", "serve.port=0", "--set", "serve.worker=false"]
    for setting in options.settings:
        command += ["--set", setting]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.strip():
                process.kill()
                said = process.stderr.read().strip() if process.stderr else ""
                raise Unavailable(f"the server did not start: {said}", hint="`espalier doctor` checks this machine")
            yield json.loads(line)["url"]
        finally:
            process.terminate()
            try:
                process.wait(_START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _heading(text: str, options: Options) -> None:
    if not options.as_json:
        click.echo(f"\n{click.style(text, bold=True)}")


def _close(folder: Path, version: ModelVersion, took_s: float) -> None:
    where = folder if folder != Path.cwd() else Path()
    click.echo(f"\n{click.style(f'Done in {took_s:.0f} s.', bold=True)} Everything is in {where}. Next:")
    rows = [
        ("espalier demo", "again: every step is a hit, with its reason"),
        (f"cd {where.name} && espalier serve", "the OpenAI endpoint and the pages at http://127.0.0.1:8321"),
        ("espalier keys create --role approver", "a key to sign in with, and for your own client"),
        ("espalier run support.yaml --param epochs=4", "change one thing; only what depends on it runs"),
        (f"espalier models card {version.name}@production", "the model card, with its evidence"),
        ("espalier data show support", "what was read, dropped, redacted, and why"),
    ]
    for command, why in rows:
        click.echo(f"  {command:<46} {why}")
