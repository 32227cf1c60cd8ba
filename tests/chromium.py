"""A headless Chromium for tests of pages, spoken to over a pipe: the standard library is enough."""

import json
import os
import select
import shutil
import subprocess
import sys
import time

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The browser reads requests from descriptor 3 and answers on 4.
_START = """import fcntl, os, sys
for target, source in zip((3, 4), [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]):
    os.dup2(source, target)
os.execv(sys.argv[3], sys.argv[3:])"""
PATIENCE = 60  # seconds for one answer
_CODES = {"Tab": 9, " ": 32}  # keys that do something by themselves


class Browser:
    """One page. `errors` are the exceptions that its scripts raised and the requests it made."""

    def __init__(self, profile):
        ours, theirs = os.pipe(), os.pipe()  # we read, they read
        flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --remote-debugging-pipe".split()
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", _START, str(theirs[0]), str(ours[1]), PROGRAM, *flags]
            + [f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs[0], ours[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs[0]), os.close(ours[1])
        self.answers, self.requests = open(ours[0], "rb"), open(theirs[1], "wb", buffering=0)
        self.left, self.number, self.session, self.errors = b"", 0, None, []
        pages = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """The result of a command of the DevTools protocol. RuntimeError where the browser refuses or is not there."""
        self.number += 1
        session = {"sessionId": self.session} if self.session else {}
        request = {"id": self.number, "method": method, "params": params, **session}
        self.requests.write(json.dumps(request).encode() + b"\0")
        while True:
            while b"\0" not in self.left:
                ready, _, _ = select.select([self.answers], [], [], PATIENCE)
                more = os.read(self.answers.fileno(), 1 << 16) if ready else b""
                if not more:
                    raise RuntimeError(f"{method}: {PROGRAM} has ended or said nothing for {PATIENCE} s")
                self.left += more
            message, _, self.left = self.left.partition(b"\0")
            message = json.loads(message)
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(message["params"]["exceptionDetails"])
            elif message.get("method") == "Network.requestWillBeSent":
                self.errors += [url for url in [message["params"]["request"]["url"]] if not url.startswith("file:")]
            elif message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def open(self, path, fragment=""):
        """Loads a file anew and waits until its scripts have run."""
        self.call("Page.navigate", url="about:blank")
        failed = self.call("Page.navigate", url=path.as_uri() + fragment).get("errorText")
        if failed:
            raise RuntimeError(f"{path}: {failed}")
        for _ in range(200):
            if self.run("location.protocol === 'file:' && document.readyState === 'complete'"):
                return
            time.sleep(0.02)
        raise RuntimeError(f"{path} was not loaded in 4 s")

    def run(self, script):
        """The value of a JavaScript expression in the page. RuntimeError where it raises."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def press(self, *keys):
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            event = {"key": key, "windowsVirtualKeyCode": _CODES.get(key, 0), **text}
            self.call("Input.dispatchKeyEvent", type="keyDown", **event)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=_CODES.get(key, 0))

    def close(self):
        self.requests.close(), self.answers.close()  # it ends with its pipe
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
