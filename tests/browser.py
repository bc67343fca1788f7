"""A headless browser, controlled through the pipes of its DevTools protocol: needs no driver and no package.

https://chromedevtools.github.io/devtools-protocol: messages are JSON, each ends with a zero byte.
"""

import base64
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 60


def find() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Page:
    """A file in an offline browser; a context manager that ends the browser."""

    def __init__(self, path: Path, profile: Path, width: int = 900, height: int = 600):
        read_here, self._write = os.pipe()
        self._read, write_here = os.pipe()
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
        command = [find(), *flags, f"--window-size={width},{height}", f"--user-data-dir={profile}", "about:blank"]
        quiet = [(os.POSIX_SPAWN_OPEN, place, os.devnull, os.O_WRONLY, 0) for place in (1, 2)]
        pipes = [(os.POSIX_SPAWN_DUP2, read_here, 3), (os.POSIX_SPAWN_DUP2, write_here, 4)]  # where the browser looks for them
        self._process = os.posix_spawn(command[0], command, os.environ, file_actions=[*quiet, *pipes], setpgroup=0)
        os.close(read_here)
        os.close(write_here)
        self._buffer, self._count, self._session, self.errors = b"", 0, None, []
        try:
            self._open(path)
        except BaseException:
            self.__exit__()
            raise

    def _open(self, path: Path) -> None:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Runtime.enable")
        self._call("Network.enable")
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self._call("Network.emulateNetworkConditions", **offline)
        self._call("Page.navigate", url=path.resolve().as_uri())

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process, signal.SIGKILL)  # it has children
        os.waitpid(self._process, 0)
        os.close(self._read)
        os.close(self._write)

    def evaluate(self, expression: str) -> object:
        """The value of an expression in the page."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Returns once the expression is true."""
        end = time.monotonic() + SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"{expression} has not become true; errors: {self.errors}"
            time.sleep(0.05)

    def screenshot(self) -> np.ndarray:
        """Screenshot of the page, RGB."""
        data = base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Presses the left button, moves the mouse, releases the button."""
        for kind, (x, y), button in (("mousePressed", start, 1), ("mouseMoved", end, 1), ("mouseReleased", end, 0)):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=button, clickCount=1)

    def wheel(self, place: tuple[int, int], amount: int) -> None:
        """Turns the wheel; positive zooms out."""
        self._call("Input.dispatchMouseEvent", type="mouseWheel", x=place[0], y=place[1], deltaX=0, deltaY=amount)

    def key(self, name: str) -> None:
        """Presses and releases a key."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=name)

    def _call(self, method: str, **parameters: object) -> dict:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"])
            if answer.get("id") == self._count:
                assert "result" in answer, answer
                return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], SECONDS)[0], "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)
