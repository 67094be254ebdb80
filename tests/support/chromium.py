"""Drives a headless Chromium over its debugging pipe, with nothing but the standard library."""

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 300.0  # seconds for an answer, on a busy machine too


class Page:
    """A page; `complaints` collects exceptions, console errors and every request beyond the file itself."""

    def __init__(self, url: str, width: int, height: int, profile: Path):
        self._url, self._size, self._profile = url, (width, height), profile
        self.complaints: list[str] = []
        self._count, self._buffer = 0, b""

    def __enter__(self) -> "Page":
        assert PROGRAM is not None
        to_child, self._write = os.pipe()
        self._read, from_child = os.pipe()

        def pipes() -> None:  # the protocol is spoken on descriptors 3 and 4
            spare = [os.dup(to_child), os.dup(from_child)]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        options += [f"--user-data-dir={self._profile}", "--no-first-run", "about:blank"]
        self._process = subprocess.Popen(
            [PROGRAM, *options],
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable", session=True)
        width, height = self._size
        self.resize(width, height)
        self._send("Page.navigate", session=True, url=self._url)
        deadline = time.monotonic() + PATIENCE
        while not self.run("document.documentElement?.dataset.drawn === 'yes'"):
            assert time.monotonic() < deadline, f"the page does not finish drawing: {self.complaints}"
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def resize(self, width: int, height: int) -> None:
        self._send(
            "Emulation.setDeviceMetricsOverride",
            session=True,
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def run(self, script: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        answer = self._send("Runtime.evaluate", session=True, expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        import base64

        answer = self._send("Page.captureScreenshot", session=True, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _send(self, method: str, session: bool = False, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        name, facts = event.get("method"), event.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(facts["exceptionDetails"])[:600])
        elif name == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(facts["args"])[:600])
        elif name == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.complaints.append(facts["entry"]["text"])
        elif name == "Network.requestWillBeSent" and not facts["request"]["url"].startswith((self._url, "data:")):
            self.complaints.append(f"request: {facts['request']['url']}")

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            waiting = select.poll()  # which takes descriptors of any number
            waiting.register(self._read, select.POLLIN)
            assert waiting.poll(1000 * max(0.0, deadline - time.monotonic())), "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has gone"
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(line)
