"""A real browser for tests: headless Chromium, driven over WebDriver's HTTP protocol without further libraries."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
ENTER, TAB, SPACE = "\ue007", "\ue004", " "


class Browser:
    """One window. Every method waits until it is done."""

    def __init__(self, address: str, chromium: str, profile: Path):
        self._address = address
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        options = {
            "binary": chromium,
            "args": [*FLAGS, f"--user-data-dir={profile}"],
            "prefs": {"download.default_directory": str(profile / "downloads")},
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"
        self.downloads = profile / "downloads"
        self._cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def open(self, path: Path) -> None:
        """Load a page from a file; the logs start anew."""
        self.messages(), self.requests()
        self._call("POST", f"{self._session}/url", {"url": path.resolve().as_uri()})

    def load_seconds(self, path: Path) -> float:
        """Load a page; the seconds of CPU that its main thread needs, which do not grow when the machine is busy."""
        self._cdp("Performance.enable", timeDomain="threadTicks")
        self.open(path)  # which sets the clock to 0
        self.js("return new Promise(done => requestAnimationFrame(() => setTimeout(done)))")  # it has been painted
        metrics = self._cdp("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    def view(self, width: int, height: int = 800, dark: bool = False) -> None:
        """Show the page as wide as a screen of `width` CSS pixels, in light or dark."""
        self._cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._cdp("Emulation.setEmulatedMedia", features=[scheme])

    def js(self, script: str, *arguments: object) -> object:
        """What a function body returns, as JSON."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": list(arguments)})

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, where the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", f"{self._session}/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]})

    def click(self, selector: str) -> None:
        """Click on the first element that a CSS selector finds."""
        found = self._call("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        self._call("POST", f"{self._session}/element/{next(iter(found.values()))}/click", {})

    def messages(self) -> list[str]:
        """What the console has said since it was last asked."""
        return [entry["message"] for entry in self._call("POST", f"{self._session}/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """The addresses asked for since this was last asked, data: and blob: among them."""
        entries = self._call("POST", f"{self._session}/se/log", {"type": "performance"})
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def screenshot(self) -> bytes:
        """PNG of the whole page."""
        shot = self._cdp("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._call("POST", f"{self._session}/print", {}))

    def quit(self) -> None:
        self._call("DELETE", self._session)

    def _cdp(self, command: str, **parameters: object) -> dict:
        return self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _call(self, method: str, path: str, body: dict | None = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with self._open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None


@contextlib.contextmanager
def started(chromedriver: str, chromium: str, profile: Path) -> Iterator[Browser]:
    """A browser with a new profile in an empty folder; it ends with the block."""
    driver = subprocess.Popen([chromedriver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = next(line for line in driver.stdout if "successfully on port" in line)
        address = f"http://127.0.0.1:{int(line.rstrip().rstrip('.').rpartition(' ')[2])}"
        browser = Browser(address, chromium, profile)
        try:
            yield browser
        finally:
            browser.quit()
    finally:
        driver.terminate()
        driver.wait(10)
        driver.stdout.close()


def luminance(color: str) -> float:
    """Relative luminance of rgb(r, g, b), as WCAG defines it."""
    values = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)
