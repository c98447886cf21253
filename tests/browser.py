"""Chromium for tests of our own page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.frontend import CHROMIUM, CHROMIUM_ARGS, STEP_TIMEOUT_S

__all__ = ["chromium", "drop_file", "new_page"]

# Drops a file as a person does: with a DataTransfer on the element.
DROP = """
    (element, { name, type, data }) => {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, { type }));
        element.dispatchEvent(
            new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer })
        );
    }
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def new_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """Open a tab without cookies or storage. An error in its console fails the test.

    Args:
        browser: runs.
        options: of the context, such as ``color_scheme`` and ``viewport``.
    """
    context = browser.new_context(**options)
    context.set_default_timeout(STEP_TIMEOUT_S * 1000)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    # This is how a violation of the Content-Security-Policy shows.
    page.on(
        "console",
        lambda message: problems.append(message.text) if "Security" in message.text else None,
    )
    try:
        yield page
    finally:
        context.close()
    assert problems == []


def drop_file(page: Page, selector: str, file: Path, data: str, media_type: str) -> None:
    """Drop a file onto an element.

    Args:
        page: shows the element.
        selector: of the element.
        file: only its name counts.
        data: the content as base64.
        media_type: such as ``application/json``.
    """
    element = page.locator(selector)
    element.evaluate(DROP, {"name": file.name, "type": media_type, "data": data})
