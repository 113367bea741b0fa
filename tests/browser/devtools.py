"""A page in a headless Chromium that a test clicks through, over the DevTools protocol on two pipes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_QUIET = "--disable-background-networking --no-first-run --disable-component-update --disable-sync --disable-gpu --no-sandbox"
_PATIENCE_SECONDS = 60.0


class Browser:
    """The one page of a browser.

    Args:
        read: Descriptor that messages come from, with a zero byte behind each.
        write: Descriptor that they go to.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest, self._number = read, write, b"", 0
        self._loaded: set[str] = set()
        self.console: list[str] = []
        pages = [one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self._session = self.ask("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.on_page(f"{domain}.enable")
        self.on_page("Page.setLifecycleEventsEnabled", enabled=True)

    def ask(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Call a method; what the console says meanwhile is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def on_page(self, method: str, **params: Any) -> Any:
        """Call a method of the page."""
        return self.ask(method, self._session, **params)

    def open(self, page: Path) -> None:
        """Load a file."""
        loader = self.on_page("Page.navigate", url=page.as_uri())["loaderId"]
        while loader not in self._loaded:
            self._next()

    def reload(self) -> None:
        """Load it again, as a person does."""
        before = set(self._loaded)
        self.on_page("Page.reload")
        # A page that is asked for a value while it goes away answers with an error.
        while self._loaded == before:
            self._next()

    def value(self, expression: str) -> Any:
        """What an expression comes to in the page."""
        found = self.on_page("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, selector: str) -> None:
        """Scroll to an element and press the mouse on its middle, which nothing may hide."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{place}.scrollIntoView({{block: 'center'}})")
        box = self.value(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({place}.getBoundingClientRect())")
        assert self.value(f"{place}.contains(document.elementFromPoint({box[0]}, {box[1]}))"), f"{selector} is hidden"
        for kind in ("mousePressed", "mouseReleased"):
            self.on_page("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.on_page("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.on_page("Input.dispatchKeyEvent", type="keyUp", key=key)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Another window, and its colours."""
        self.on_page("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.on_page("Emulation.setEmulatedMedia", features=[scheme])

    @staticmethod
    def until(true: Callable[[], Any]) -> None:
        """Wait for something."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.05)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], _PATIENCE_SECONDS)
            assert ready, "the browser says nothing"
            read = os.read(self._read, 1 << 16)
            assert read, "the browser is gone"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(message)
        if said.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.console.append(json.dumps(said["params"]))
        if said.get("method") == "Page.lifecycleEvent" and said["params"]["name"] == "load":
            self._loaded.add(said["params"]["loaderId"])
        return said


@contextlib.contextmanager
def browser(chromium: str, profile: Path, downloads: Path) -> Iterator[Browser]:
    """Start Chromium; what it downloads goes into a folder."""
    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()

    def connect() -> None:
        # The protocol is spoken on descriptors 3 and 4, which may be taken: copies far above come first.
        far = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in (from_us, to_us)]
        for descriptor, number in zip(far, (3, 4), strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)

    command = [chromium, "--headless", *_QUIET.split(), f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
    process = subprocess.Popen(command, close_fds=False, preexec_fn=connect, stderr=subprocess.DEVNULL)
    os.close(from_us)
    os.close(to_us)
    try:
        opened = Browser(from_browser, to_browser)
        opened.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        yield opened
    finally:
        os.close(to_browser)
        process.terminate()
        process.wait(30)
        os.close(from_browser)
