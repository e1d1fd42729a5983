# SPDX-License-Identifier: Apache-2.0
"""Use the page of a running server as a visitor does, in headless Chromium; and look for what shuts people out.

    python tests/serving/click_through.py --url http://127.0.0.1:8000 --axe axe.min.js --shots shots

At three widths, light and dark: the history is there, recommendations come, a query is searched for from the keyboard
with a suggestion, an answer says why, what is opened becomes history, filters hold, a new title is found, two models
stand side by side (where the server has them). Needs `playwright` and Debian's `chromium`; axe-core is a file of npm.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

WIDTHS = (360, 768, 1440)
CHROMIUM = "/usr/bin/chromium"
OFFLINE = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def audit(page, axe: Path | None) -> list[str]:
    """Return what axe-core finds on the page as it is."""
    if axe is None:
        return []
    if not page.evaluate("typeof axe !== 'undefined'"):
        # Not as a script of the page, which its policy forbids.
        page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations")
    return [f"{one['id']}: {one['help']} ({one['nodes'][0]['html'][:120]})" for one in found]


def titles(page, place: str) -> list[str]:
    """Return the titles of cards."""
    return page.locator(f"{place} .card b").all_inner_texts()


def wait(page, text: str) -> None:
    """Wait until the page says something."""
    page.get_by_role("status").filter(has_text=text).wait_for(timeout=60_000)


def click_through(
    page, url: str, query: str, axe: Path | None, shots: Path | None, name: str, adds: bool
) -> dict[str, object]:
    """Do everything once; return what was seen."""
    errors: list[str] = []
    outside: list[str] = []
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: request.url.startswith((url, "data:")) or outside.append(request.url))
    violations: list[str] = []

    def look(part: str) -> None:
        violations.extend(audit(page, axe))
        if shots is not None:
            page.screenshot(path=shots / f"{name}-{part}.png", full_page=part != "why")

    page.goto(url)
    wait(page, "Recommendations are there")
    seen: dict[str, object] = {"recommended": len(titles(page, "#for-you"))}
    look("start")
    # Search from the keyboard: type, take a suggestion back, and ask.
    page.get_by_role("combobox", name="Search").focus()
    page.keyboard.type(query[:3])
    options = page.locator("#suggestions [role=option]")
    options.first.wait_for(timeout=60_000)
    seen["suggested"] = options.all_inner_texts()
    page.keyboard.press("ArrowDown")
    assert page.locator("#suggestions [aria-selected=true]").all_inner_texts() == options.all_inner_texts()[:1]
    look("suggested")
    page.keyboard.press("Escape")
    page.get_by_role("combobox", name="Search").fill(query)
    page.keyboard.press("Enter")
    wait(page, "Answers for")
    seen["found"] = len(titles(page, "#found"))
    seen["sideways scrolling"] = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    look("found")
    # Why, and what is opened becomes history.
    count = page.locator("#history-items li").count()
    page.locator("#found .card").first.click()
    page.get_by_role("dialog").wait_for()
    opened = page.locator("#why-title").inner_text()
    look("why")
    page.locator("#watch").click()
    wait(page, "Answers for")
    page.locator("#history-items .card b").first.filter(has_text=opened).wait_for(timeout=60_000)
    seen["history"] = [count, page.locator("#history-items li").count()]
    # A filter.
    filters = page.locator("#filters")
    if not filters.evaluate("node => node.open"):
        filters.locator("summary").click()
    box = page.locator("#categories input").first
    if box.count():
        box.check()
        wait(page, "Answers for")
        page.wait_for_timeout(1500)
        seen["with a category"] = [len(titles(page, "#for-you")), len(titles(page, "#found"))]
        before = titles(page, "#found")
        page.get_by_role("button", name="Show everything").click()
        page.wait_for_function("!document.querySelector('#categories input:checked')")
        wait(page, "Answers for")
        page.wait_for_timeout(1500)
        seen["without it again"] = [len(titles(page, "#for-you")), len(titles(page, "#found"))]
        assert titles(page, "#found") != before
    # A second model.
    if page.locator("#compare").is_visible():
        page.locator("#compare summary").click()
        page.locator("#other-model").select_option(index=1)
        page.locator("#for-you h3").nth(1).wait_for(timeout=120_000)
        seen["models"] = page.locator("#for-you h3").all_inner_texts()
        look("compared")
        page.locator("#other-model").select_option(index=0)
    if adds:
        _add(page, name, seen)
        look("added")
    return {**seen, "errors": errors, "from elsewhere": outside, "violations": sorted(set(violations))}


def _add(page, name: str, seen: dict[str, object]) -> None:
    """Add a title, which is found by its words."""
    page.locator("#add summary").click()
    page.locator("#add-title").fill(f"A Quiet Voyage to the Moons of Saturn {name}")
    page.get_by_role("button", name="Add and find it").click()
    page.locator("#found .card", has_text=f"Moons of Saturn {name}").wait_for(timeout=60_000)
    seen["new title stands at"] = 1 + [name in title for title in titles(page, "#found")].index(True)


def run(
    url: str, query: str, axe: Path | None, shots: Path | None, *, adds: bool = True
) -> dict[str, dict[str, object]]:
    """Use the page at every width, light and dark; `adds`: also add a title, which takes a text encoder and views."""
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                name = f"{width}-{scheme}"
                context = browser.new_context(
                    viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=False
                )
                found[name] = click_through(context.new_page(), url, query, axe, shots, name, adds)
                context.close()
        browser.close()
    return found


def wrong(found: dict[str, dict[str, object]]) -> list[str]:
    """Return what a visitor would complain about."""
    return [
        f"{name}: {what} {seen[what]}"
        for name, seen in found.items()
        for what in ("errors", "from elsewhere", "violations", "sideways scrolling")
        if seen[what]
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--query", default="space adventure")
    parser.add_argument("--axe", type=Path, help="axe.min.js of axe-core")
    parser.add_argument("--shots", type=Path, help="folder for screenshots")
    given = parser.parse_args()
    if given.shots is not None:
        given.shots.mkdir(parents=True, exist_ok=True)
    said = run(given.url.rstrip("/") + "/", given.query, given.axe, given.shots)
    print(json.dumps(said, indent=2, ensure_ascii=False))  # noqa: T201
    sys.exit(bool(wrong(said)))
