# SPDX-License-Identifier: MIT
"""A headless Chromium for tests: opens a page, presses keys as a keyboard does, and notes what is said and asked for.

It is spoken to over two pipes (Chrome DevTools Protocol, messages of JSON that end with a zero byte), which takes no
package and no port.
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
WHY = f"needs one of {', '.join(BROWSERS)}"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 60.0
"""Seconds that an answer may take."""
_KEYS = {  # name: virtual key code, text
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Space": (32, " "),
}


def dump(page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    """What is left of ``page`` when its scripts have run, on the standard output; the console is on the other."""
    command = [
        str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "--allow-file-access-from-files",
        "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


class Browser:
    """A browser with one page.

    Attributes:
        said: what was said on the console or thrown since the page was opened.
        asked: addresses that the page asked for, its own apart.
    """

    def __init__(self, profile: Path) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self._page, self._number, self._session = "", 0, ""
        self._buffer, self._loaded = b"", False
        child_reads, self._write = os.pipe()
        self._read, child_writes = os.pipe()
        # out of the way of 3 and 4, where the browser wants them
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (child_reads, child_writes)]
        command = [str(BROWSER), *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            ["bash", "-c", 'exec "${@:3}" 3<&"$1" 4>&"$2"', "bash", *map(str, ends), *command],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (child_reads, child_writes, *ends):
            os.close(end)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)  # which ends it
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)

    def open(self, page: Path) -> None:
        """Loads ``page``, and forgets what was said and asked before."""
        self._page, self._loaded = page.resolve().as_uri(), False
        self.said, self.asked = [], []
        self.call("Page.navigate", url=self._page)
        ends = time.monotonic() + PATIENCE
        while not self._loaded:
            self._note(self._message(ends))

    def press(self, *keys: str) -> None:
        """Presses and releases every one of ``keys``: ``Tab``, ``Enter``, ``Space``, or a letter."""
        for key in keys:
            code, text = _KEYS.get(key, (ord(key.upper()[0]), key))
            name = " " if key == "Space" else key
            event = {"key": name, "code": key if key in _KEYS else f"Key{key.upper()}", "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def tab_to(self, selector: str, most: int = 400) -> None:
        """Presses Tab until what has the focus fits ``selector``. Raises AssertionError if nothing does."""
        for _ in range(most):
            self.press("Tab")
            if self.run(f"document.activeElement.matches({json.dumps(selector)})"):
                return
        raise AssertionError(f"{most} tabs do not lead to {selector}")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript ``expression`` in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one message of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        ends = time.monotonic() + PATIENCE
        while (answer := self._message(ends)).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, (method, answer["error"])
        found: dict[str, Any] = answer["result"]
        return found

    def _message(self, ends: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready: Sequence[int] = select.select([self._read], [], [], max(0.0, ends - time.monotonic()))[0]
            part = os.read(self._read, 1 << 16) if ready else b""
            assert part, "the browser does not answer"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        method, told = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent" and told["request"]["url"].partition("#")[0] != self._page:
            self.asked.append(told["request"]["url"][:200])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(told))
