"""A headless Chromium for tests of pages: one page of a file, driven by the DevTools protocol
over a pipe (--remote-debugging-pipe: JSON messages, each ended by a NUL)."""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

from programs import PATIENCE

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
SETTLED = """new Promise(done => requestAnimationFrame(() => requestAnimationFrame(
    () => done(true))))"""


def find():
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """with Page(path) as page: page.run("1 + 1") -> 2; page.requests: the URLs asked for."""

    def __init__(self, path, dark=False, width=1280, height=900):
        self.url = pathlib.Path(path).resolve().as_uri()
        self.size = (width, height)
        self.requests, self.errors, self.buffer, self.last = [], [], b"", 0
        self.dark = dark

    def __enter__(self):
        self.profile = tempfile.mkdtemp(prefix="subhost-browser-")
        to_browser, self.out = os.pipe()
        self.into, from_browser = os.pipe()

        # The browser reads at 3 and writes at 4.
        shell = f"exec 3<&{to_browser} 4>&{from_browser} \"$@\""
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "browser", find(), "--headless", "--no-sandbox",
             "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-dev-shm-usage",
             f"--user-data-dir={self.profile}", f"--window-size={self.size[0]},{self.size[1]}",
             "--remote-debugging-pipe", "about:blank"],
            pass_fds=(to_browser, from_browser), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        os.close(to_browser)
        os.close(from_browser)
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self):
        self.session = None
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self.session = self._call("Target.attachToTarget", targetId=target,
                                  flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}])
        self._call("Page.navigate", url=self.url)
        end = time.monotonic() + 30 * PATIENCE
        while self.run("document.readyState + location.href") != "complete" + self.url:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.url} is not loaded")
            time.sleep(0.02)
        self.settle()

    def __exit__(self, *exception):
        os.close(self.out)
        try:
            os.killpg(self.process.pid, 9)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.into)
        shutil.rmtree(self.profile, ignore_errors=True)

    def _call(self, method, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 30 * PATIENCE
        while True:
            answer = self._read(end)
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self, end):
        while b"\0" not in self.buffer:
            if not select.select([self.into], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError("the browser does not answer")
            more = os.read(self.into, 1 << 20)
            if not more:
                raise RuntimeError("the browser has ended")
            self.buffer += more
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        parameters = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(parameters["exceptionDetails"]["text"])
        elif message.get("method") == "Log.entryAdded":
            self.errors.append(parameters["entry"]["text"])
        return message

    def run(self, expression):
        """The value of a JavaScript expression; a promise is waited for."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True,
                            awaitPromise=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    def settle(self):
        """Until what was changed has been drawn."""
        self.run(SETTLED)

    def type(self, selector, text):
        """Keys into a field, as a person types them."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", text=text)

    def click(self, selector, index=0):
        """The mouse, at the middle of an element."""
        x, y = self.run(f"""(() => {{
            const element = document.querySelectorAll({json.dumps(selector)})[{index}];
            element.scrollIntoView({{block: "center"}});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left",
                       clickCount=1)

    def screenshot(self, path):
        data = self._call("Page.captureScreenshot", format="png")["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))
