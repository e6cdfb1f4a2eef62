"""A browser without a window: opens pages, runs scripts in them, and takes screenshots.

It is driven by the Chrome DevTools protocol, JSON messages that end in a zero byte, over two pipes.
"""

import base64
import json
import os
import shutil
import subprocess
from itertools import count

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
]
# Chromium reads commands from file 3 and writes to file 4.
SHELL = 'exec "$@" 3<&$COMMANDS 4>&$REPLIES'


class Browser:
    """One process with one page."""

    def __init__(self, folder):
        commands, self._commands = os.pipe()
        self._replies, replies = os.pipe()
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", SHELL, "-", CHROMIUM, *FLAGS, f"--user-data-dir={folder}"],
            env=os.environ | {"COMMANDS": str(commands), "REPLIES": str(replies)},
            pass_fds=(commands, replies),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(replies)
        self._numbers, self._session, self._unread, self.console = count(1), {}, b"", []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def close(self):
        self._session = {}
        self._call("Browser.close")
        self._process.wait(60)
        os.close(self._commands)
        os.close(self._replies)

    def open(self, path):
        """Opens a file and waits until it has loaded; what it then complains of is in `console`."""
        self.console = []
        self._call("Page.navigate", url=path.as_uri())
        self.run("new Promise((load) => (document.readyState === 'complete' ? load() : (window.onload = load))).then()")

    def run(self, script):
        """The value of an expression in the page, after its promise if it is one."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def show(self, width, height, scheme="light"):
        """Sets the size of the page in pixels, and whether the user likes it light or dark."""
        options = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **options)
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key, code):
        """Presses a key, by its name and its number."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def take_screenshot(self, *, whole=False):
        """What the page looks like, as a PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def _call(self, method, **options):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": options} | self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (reply := self._read()).get("id") != number:
            pass
        assert "result" in reply, reply
        return reply["result"]

    def _read(self):
        while b"\0" not in self._unread:
            part = os.read(self._replies, 2**20)
            assert part, "the browser has ended"
            self._unread += part
        text, _, self._unread = self._unread.partition(b"\0")
        message = json.loads(text)
        if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.console.append(message["params"])
        return message
