"""A real headless Chromium for pages, with what it complains about."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--no-sandbox",  # containers run the tests as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# what Gradio's image editor says now and then when a photo is cleared while it still draws
HARMLESS = ("No draw texture found for layer",)


@contextmanager
def browser_page(width: int = 1280, height: int = 900) -> Iterator[tuple[Page, list[str]]]:
    """A page of `width` px and the list that its console errors, page errors and failed requests
    join."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium is installed; apt install chromium")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium,
            args=FLAGS,
            viewport={"width": width, "height": height},
            accept_downloads=True,
        )
        page, complaints = context.pages[0], []
        page.on(
            "console",
            lambda line: (
                line.type == "error" and line.text not in HARMLESS and complaints.append(line.text)
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        # what the page itself gives up, such as a stream of events, is aborted
        page.on(
            "requestfailed",
            lambda request: (
                request.failure != "net::ERR_ABORTED"
                and complaints.append(f"{request.url[:200]}: {request.failure}")
            ),
        )
        yield page, complaints
        context.close()
