"""A real headless Chromium, driven through chromedriver with WebDriver: JSON over HTTP."""

import base64
import http.client
import json
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
MISSING = " and no ".join(
    name for name, path in [("chromium", CHROMIUM), ("chromedriver", CHROMEDRIVER)] if not path)

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--hide-scrollbars"]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver, section 12: what marks an element
KEYS = {"Enter": "\ue007", "Tab": "\ue004", "Escape": "\ue00c", "Backspace": "\ue003",
        "ArrowUp": "\ue013", "ArrowDown": "\ue015", "Shift": "\ue008"}
PATIENTLY = """
    const values = arguments;
    const ask = function () {
        %s
    };
    const end = performance.now() + 500;
    return new Promise((resolve, reject) => {
        const look = () => {
            try {
                const value = ask(...values);
                if (value || performance.now() > end) resolve(value);
                else setTimeout(look, 10);
            } catch (error) { reject(error); } };
        look(); });"""


class Browser:
    """One browser window; a context manager. *profile* is an empty directory."""

    def __init__(self, profile):
        self.profile = profile
        self.shape = self.opened = None  # what `resize` and `open` last did to this window

    def __enter__(self):
        self.driver = subprocess.Popen([CHROMEDRIVER, "--port=0"], text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        started = next(line for line in self.driver.stdout if "started successfully" in line)
        port = int(started.split()[-1].rstrip("."))
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={self.profile}"]}
        logs = {"performance": "ALL", "browser": "ALL"}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": logs}
        self.session = "/session"
        session = self.call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.session += "/" + session["sessionId"]
        return self

    def __exit__(self, *exception):
        try:
            self.call("DELETE", "")
        finally:
            self.connection.close()
            self.driver.terminate()
            self.driver.wait(10)
            self.driver.stdout.close()

    def call(self, method, path, body=None):
        """One WebDriver command: its value."""
        text = json.dumps(body) if body is not None else None
        headers = {"Content-Type": "application/json"}
        self.connection.request(method, self.session + path, text, headers)
        value = json.loads(self.connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{value['error']}: {value['message']}")
        return value

    def open(self, url):
        self.opened = url
        self.call("POST", "/url", {"url": url})

    def window(self):
        """The window that commands go to, so that `turn_to` finds it again."""
        return self.call("GET", "/window")

    def new_window(self):
        """Open one more window, beside the others, and turn to it."""
        self.turn_to(self.call("POST", "/window/new", {"type": "window"})["handle"])

    def turn_to(self, window):
        self.shape = self.opened = None
        self.call("POST", "/window", {"handle": window})

    def run(self, script, *arguments):
        """What the JavaScript function body *script* returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": arguments})

    def wait(self, script, *arguments, seconds=20):
        """Wait until *script* returns something true: that. The page itself asks again and again,
        for half a second in each of our calls."""
        end = time.monotonic() + seconds
        while not (value := self.run(PATIENTLY % script, *arguments)):
            assert time.monotonic() < end, f"never true: {script} {arguments}"
        return value

    def text(self, selector):
        """The visible text of the last element that *selector* finds, or None."""
        return self.run("""
            const element = Array.from(document.querySelectorAll(arguments[0])).at(-1);
            return element?.innerText.replaceAll("\\u00a0", " ")""", selector)

    def click(self, selector):
        element = self.call("POST", "/element", {"using": "css selector", "value": selector})
        self.call("POST", f"/element/{element[ELEMENT]}/click", {})

    def type(self, text):
        """Put *text* behind what is typed, at once: much sooner than `press`, key by key."""
        self.cdp("Input.insertText", text=text)

    def press(self, *keys):
        """Type *keys* into what has the focus: names of KEYS, perhaps behind "Shift+", or text."""
        strokes = []
        for key in keys:
            shifted, key = key.startswith("Shift+"), key.removeprefix("Shift+")
            typed = [(kind, character) for character in KEYS.get(key, key)
                     for kind in ("keyDown", "keyUp")]
            shift = [("keyDown", KEYS["Shift"]), ("keyUp", KEYS["Shift"])] if shifted else []
            strokes += [*shift[:1], *typed, *shift[1:]]
        actions = [{"type": kind, "value": character} for kind, character in strokes]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self.call("POST", "/actions", {"actions": [keyboard]})

    def cdp(self, command, **parameters):
        """One command of Chromium's own protocol."""
        self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width, height, dark=False):
        if self.shape == (width, height, dark):
            return
        self.shape = width, height, dark
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[scheme])

    def log(self, kind):
        """What came since the last call: "browser" is the console, "performance" the network."""
        return self.call("POST", "/se/log", {"type": kind})

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))
