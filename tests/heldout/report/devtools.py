"""A headless chromium that takes real keys and mouse clicks, driven over the pipe of its developer tools.

    with devtools.Browser(tmp_path) as browser:
        browser.open(path)
        browser.click("#memorized a.image")
        browser.press("Tab"); browser.press("Enter")
        browser.value("document.title")

The protocol is JSON, each message closed by a zero byte, on file descriptors 3 and 4 of the browser.
"""

import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from typing import Any

CHROMIUM = shutil.which("chromium")
_SECONDS = 30
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Escape": (27, "")}


class Browser:
    """One page of one browser; ends with the block."""

    def __init__(self, folder: pathlib.Path, width: int = 1280, height: int = 900) -> None:
        """Starts the browser.

        Args:
            folder: for its profile.
            width: of the window, in pixels.
            height: of the window, in pixels.
        """
        (theirs, self._in), (self._out, answers) = os.pipe(), os.pipe()
        # High numbers first: 3 and 4 may themselves be ends of the pipes.
        high = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs, answers)]
        options = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
            "--force-prefers-reduced-motion",  # no smooth scrolling, which moves things away from under the mouse
            *("--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"),
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ]
        self._process = subprocess.Popen(
            [str(CHROMIUM), *options, "about:blank"],
            pass_fds=(3, 4),
            preexec_fn=lambda: (os.dup2(high[0], 3), os.dup2(high[1], 4)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in (theirs, answers, *high):
            os.close(one)
        self._last, self._session, self._rest = 0, None, b""
        self.errors: list[str] = []
        self._attach()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_details: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _attach(self) -> None:
        end = time.monotonic() + _SECONDS
        pages: list[dict[str, Any]] = []
        while not pages and time.monotonic() < end:
            targets = self._call("Target.getTargets")["targetInfos"]
            pages = [one for one in targets if one["type"] == "page"]
        self._session = self._call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, **parameters: Any) -> Any:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                return answer.get("result", answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._out], [], [], _SECONDS)
            assert ready, "the browser does not answer"
            found = os.read(self._out, 1 << 16)
            assert found, "the browser has ended"
            self._rest += found
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(message["params"]["exceptionDetails"])[:500])
        return message

    def open(self, path: pathlib.Path, fragment: str = "") -> None:
        """Loads a file anew, and waits until it is there."""
        self._call("Page.navigate", url="about:blank")
        self.wait("location.protocol === 'about:'")
        self._call("Page.navigate", url=f"{path.as_uri()}{fragment}")
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        found = self._evaluate(expression)
        assert set(found) == {"result"}, found
        return found["result"].get("value")

    def _evaluate(self, expression: str) -> Any:
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)

    def wait(self, expression: str) -> None:
        """Waits until an expression is true; while a page is being loaded there may be none to ask."""
        end = time.monotonic() + _SECONDS
        while not self._evaluate(f"Boolean({expression})").get("result", {}).get("value"):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def press(self, key: str, shift: bool = False) -> None:
        """Presses and releases a key: Tab, Enter, Escape, or one that writes a character."""
        code, text = _KEYS.get(key, (ord(key.upper()[0]), key))
        shared = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **shared)
        self._call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def click(self, selector: str) -> None:
        """Clicks with the mouse on the middle of the first element with this selector, scrolled into view."""
        place = self.value(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "one.scrollIntoView({block: 'center', behavior: 'instant'}); const box = one.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            button = {"button": "left", "clickCount": 1, "x": place[0], "y": place[1]}
            self._call("Input.dispatchMouseEvent", type=kind, **button)
