"""A headless Chromium, and what it reports of a page."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

SHOTS = ROOT / "build" / "screenshots"


class Browser:
    """One window: opens a page of this disk, watches what it asks for, takes pictures."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def size(self, width: int, *, dark: bool = False) -> None:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, page: Path) -> None:
        """Open a page and wait until it is ready and its points are drawn."""
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(page.as_uri())
        drawn = "return document.documentElement.dataset.ready && document.fonts.status"
        self.until(f"{drawn} === 'loaded'")
        if self.script("return !!document.querySelector('[data-plot=scatter]')"):
            self.until("return !!document.querySelector('.points circle')")

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def until(self, condition: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not self.script(condition):
            assert time.monotonic() < end, f"never became true: {condition}"
            time.sleep(0.02)

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return every address that was asked for since the page was opened."""
        messages = [json.loads(entry["message"]) for entry in self.driver.get_log("performance")]
        sent = [item["message"] for item in messages]
        return [
            message["params"]["request"]["url"]
            for message in sent
            if message["method"] == "Network.requestWillBeSent"
        ]

    def picture(self, name: str, *, whole: bool = False) -> Path:
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}.png"
        if whole:
            size = self.script("return [innerWidth, document.documentElement.scrollHeight]")
            metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            time.sleep(0.5)
        self.driver.save_screenshot(str(path))
        return path


@pytest.fixture(scope="session", name="browser")
def chromium_window() -> Iterator[Browser]:
    """One Chromium for all tests of pages, or a skip that says what to install."""
    selenium = pytest.importorskip(
        "selenium.webdriver", reason="needs selenium: pip install -e '.[dev]'"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--hide-scrollbars")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=Service(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
