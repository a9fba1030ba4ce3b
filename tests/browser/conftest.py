"""A real Chromium, and pages that remember what they asked for and complained about."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Error, Page, Request

OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Visit:
    """A page that was opened, with all that happened to it since.

    Attributes:
        page: The page.
        requests: Addresses that it asked for, its own first.
        complaints: Errors on the console, exceptions of scripts, and dialogs that scripts opened.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", self._requested)
        self.page.on("console", self._said)
        self.page.on("pageerror", self._failed)
        self.page.on("dialog", self._asked)

    def _requested(self, request: Request) -> None:
        self.requests.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def _failed(self, error: Error) -> None:
        self.complaints.append(str(error))

    def _asked(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    @property
    def foreign(self) -> list[str]:
        """What it asked of anything but files of this machine and itself."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]


@pytest.fixture(scope="session")
def browser(give_up: Callable[[str], NoReturn]) -> Iterator[Browser]:
    """A real Chromium without a window."""
    path = shutil.which("chromium")
    if path is None:
        give_up("Chromium is missing (Debian, Ubuntu: apt-get install chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield running
        running.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[[Path], Visit]]:
    """Open a file as a double click on it would."""
    context = browser.new_context()

    def opened(path: Path) -> Visit:
        visit = Visit(context.new_page())
        visit.page.goto(path.as_uri())
        return visit

    yield opened
    context.close()
