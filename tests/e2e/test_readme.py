"""What README and tutorial tell people to type exists, and means what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from espalier.cli.main import Root

_ROOT = Path(__file__).parents[2]
_PAGES = (
    "README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/training.md", "docs/generation.md", "docs/annotation.md",
    "docs/datasets.md", "docs/cleaning.md", "docs/personal-data.md", "docs/duplicates-and-splits.md", "docs/tasks.md",
    "docs/formats.md", "docs/versions.md", "docs/drift.md", "docs/adapters.md",
    "docs/deployments.md", "docs/capacity.md", "docs/hosting.md", "docs/batch.md", "docs/quantised-bases.md",
)  # fmt: skip


def commands_of(page: str) -> list[str]:
    """Lines of code that call espalier or make, without comments."""
    text = (_ROOT / page).read_text("utf-8")
    found = re.findall(r"^(?: {4})?((?:espalier|make) [^\n`]*)$", text, re.MULTILINE)
    inline = re.findall(r"`((?:espalier|make) [^`\n]*)`", text)
    return [line.split("  #")[0].strip() for line in (*found, *inline)]


@pytest.mark.parametrize("page", _PAGES)
def test_every_command_a_page_shows_is_understood(page: str) -> None:
    commands = commands_of(page)
    assert commands
    targets = set(re.findall(r"^([a-z-]+):", (_ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for line in commands:
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words[:1] == ["make"]:
                assert set(words[1:]) <= targets, line
            elif words[:1] == ["espalier"] and "--help" not in words:
                understand(words[1:])


def understand(words: list[str]) -> None:
    """Parse the words as the command line would, without doing anything."""
    command: click.Command = Root()
    context = click.Context(command, info_name="espalier")
    while isinstance(command, click.Group) and words:
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        if not isinstance(command, click.Group):
            command.make_context(name, list(words), parent=context)
            return
        context = click.Context(command, info_name=name, parent=context)


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    for page in [_ROOT / "README.md", *(_ROOT / "docs").rglob("*.md"), _ROOT / "examples" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_shows_the_demo_as_it_really_ran() -> None:
    text = (_ROOT / "README.md").read_text("utf-8")
    shown = text.split("<!-- demo output: begin -->")[1].split("<!-- demo output: end -->")[0]
    for said in ("support.yaml", "xml_valid", "xml_fields", "PendingManualApproval", "support@production", "Done in"):
        assert said in shown
