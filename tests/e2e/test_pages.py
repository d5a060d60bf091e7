"""The pages in a real browser: sign in, watch a run, approve as the second person, compare in the playground."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from espalier.sdk.client import Client

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

expect.set_options(timeout=120_000)  # a busy machine is no failure; the test's own time limit ends it

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1240, "height": 900})
    page = context.new_page()
    page.set_default_timeout(120_000)
    reached: list[str] = []
    page.on("request", lambda request: reached.append(request.url))
    yield page
    context.close()
    foreign = [url for url in reached if not url.startswith(("http://127.0.0.1", "data:", "blob:", "ws://127.0.0.1"))]
    assert foreign == []  # the pages work with no network


def take_picture(page: Page, name: str) -> None:
    """Keep a screenshot where $ESPALIER_SCREENSHOTS says, for people to look at."""
    folder = os.environ.get("ESPALIER_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def sign_in(page: Page, url: str, key: str) -> None:
    page.goto(url)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{url}/runs")


@pytest.fixture(scope="module")
def served(house: Any, serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A copy of the house, and its address."""
    folder = shutil.copytree(house.folder, tmp_path_factory.mktemp("pages") / "larkspur", symlinks=True)
    with serving(folder) as url:
        yield folder, url


def test_a_wrong_key_is_refused_on_the_page(served: tuple[Path, str], page: Page) -> None:
    _, url = served
    page.goto(f"{url}/models")
    expect(page).to_have_url(f"{url}/sign-in")
    page.get_by_label("API key").fill("esp_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("key", exact=False).first).to_be_visible()
    expect(page).to_have_url(f"{url}/sign-in")


def test_a_run_is_watched_approved_by_the_second_person_and_compared(served: tuple[Path, str], page: Page) -> None:
    folder, url = served
    with Client(folder, actor="grace") as grace:
        key = grace.keys.create(name="browser", role="approver")
    sign_in(page, url, key.secret)
    with Client(folder, actor="ada") as ada:
        run = ada.pipelines.run(recipe=str(folder / "support.yaml"), param=("epochs=2",))
    page.goto(f"{url}/runs/{run.id}")
    expect(page.get_by_test_id("loss-curve").locator("canvas")).to_be_visible(timeout=120_000)
    expect(page.get_by_test_id("pace")).to_contain_text("tokens/s")
    expect(page.get_by_test_id("comparison")).to_contain_text("xml_valid", timeout=120_000)
    expect(page.get_by_test_id("status")).to_have_text("succeeded", timeout=120_000)
    take_picture(page, "run")

    page.goto(f"{url}/models")
    version = page.get_by_test_id("model-version").filter(has_text="support@v2")
    expect(version.get_by_test_id("clause")).to_have_count(4)
    take_picture(page, "models-pending")
    version.get_by_label("Comment").fill("read four cases")
    version.get_by_role("button", name="Approve").click()
    expect(version.get_by_text("Approved by grace")).to_be_visible()
    version.get_by_role("button", name="Promote").click()
    expect(version.get_by_test_id("alias")).to_have_text("production")
    take_picture(page, "models-approved")

    page.goto(f"{url}/playground")
    page.get_by_label("Question").fill("The probe shows no light since Monday.")
    page.get_by_label("At most, tokens").fill("12")
    page.get_by_role("button", name="Ask both").click()
    for pane in (0, 1):
        expect(page.get_by_test_id(f"figures-{pane}")).to_contain_text("$")
        expect(page.get_by_test_id(f"answer-{pane}")).not_to_be_empty()
    take_picture(page, "playground")

    with Client(folder, actor="grace") as grace:
        grace.models.approve(ref="support@v1", comment="the one before")
        grace.deployments.split(name="support", variants={"support@v1": 1}, reason="as it was")
        grace.deployments.canary(name="support", candidate="support@v2")
    page.goto(f"{url}/serving")
    expect(page.get_by_test_id("shares")).to_contain_text("support@v2 5%")
    take_picture(page, "serving-canary")
    page.get_by_label("Reason").fill("answers in the wrong tone")
    page.get_by_test_id("rollback").click()
    expect(page.get_by_test_id("shares")).to_have_text("support@v1 100%")
    expect(page.get_by_test_id("deployment")).to_contain_text("answers in the wrong tone")
    take_picture(page, "serving")
    with Client(folder, actor="ada") as ada:
        assert ada.models.show(ref="support@production").version.approvals[0].actor == "grace"
        assert {row.name for row in ada.usage.show()} >= {"model:support@v2"}
