"""Tests the pages of Beespace in chromium. Started by tests/browser.

The browser is controlled through the HTTP interface of chromedriver (WebDriver, W3C), so Python's standard library is enough.
"""

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from browser_proxy import Proxy

BIN = os.environ["BEESPACE_BIN"]
IMAGE = os.environ["BEESPACE_IMAGE"]
GUESTS = os.environ["BEESPACE_GUESTS"]
PICTURES = sys.argv[1]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

# Untrusted text in a push.
HOSTILE_BRANCH = "x<script>document.title='owned'</script>"
HOSTILE_MESSAGE = "Fill <script>document.title='owned'</script> \x1b[31mred\x1b]0;owned\x07"

GREEN = """name: hive
steps:
  - name: check
    uses: check
    with: { require: ["README.md"] }
  - name: build
    image: %s
    run:
      - printf '\\033[1;32m   Compiling\\033[0m hive v0.1.0\\n\\033[33mwarning\\033[0m cell 7 is \\033[4mempty\\033[0m\\n'
      - for cell in 1 2 3; do echo "cell $cell filled"; sleep 0.4; done
      - printf '\\033[38;5;208mhoney\\033[0m \\033[44;97m 100%%%% \\033[0m <b>not bold</b>\\n'
  - name: test
    image: %s
    run: test -f README.md && echo "all cells hold"
""" % (IMAGE, IMAGE)
DENIED = GREEN.replace(IMAGE, "docker.io/library/alpine:latest", 1)
DEPLOY = GREEN.replace("name: hive", "name: deploy", 1)
INVALID = GREEN.replace("    run: test", "    rnu: test")
FAILING = GREEN.replace('run: test -f README.md && echo "all cells hold"', "run: |\n      echo 'error: cell 3 leaks'\n      seq 80\n      echo 'error: the comb bends'\n      exit 3")


class Failed(Exception):
    """A check has failed."""


def expect(condition, what):
    if not condition:
        raise Failed(what)


def wait(what, probe, seconds=180):
    """Calls `probe` until it returns something. Only a failing test waits as long as `seconds`."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"timed out after {seconds} s while waiting for {what}")
        time.sleep(0.05)


def fetch(url, data=None, method=None, headers=None):
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **(headers or {})}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


class World:
    """A fake Gogs and a server, with their files in a temporary folder."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def spawn(self, *command, log):
        out = open(self.path(log), "wb")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        self.started.append(process)
        return process

    def read_log(self, name, pattern, process):
        def probe():
            with open(self.path(name), encoding="utf-8", errors="replace") as log:
                text = log.read()
            expect(process.poll() is None, f"{name}: the program exited\n{text[-2000:]}")
            return re.search(pattern, text)
        return wait(f"{pattern!r} in {name}", probe)

    def start(self):
        gogs = self.spawn(f"{BIN}/fake-gogs", "--listen", "127.0.0.1:0", "--dir", self.path("gogs"), log="gogs.log")
        ready = json.loads(self.read_log("gogs.log", r"\{.*\}", gogs).group())
        self.gogs, self.token, self.repo = ready["url"].rstrip("/"), ready["token"], f"{ready['owner']}/hive"
        fetch(f"{self.gogs}/control/repos", {"name": self.repo})
        self.url = f"http://127.0.0.1:{free_port()}"
        with open(self.path("gogs.token"), "w", encoding="utf-8") as file:
            file.write(self.token)
        with open(self.path("beespace.toml"), "w", encoding="utf-8") as file:
            file.write(f"""
[server]
listen = "{self.url.removeprefix("http://")}"
open = true
[data]
dir = "{self.path("data")}"
[limits]
free_disk = "64MiB"
[gogs]
url = "{self.gogs}"
token_file = "{self.path("gogs.token")}"
[[policy]]
name = "images"
plugin = "policy-images"
settings = {{ repositories = ["docker.io/beespace-quickstart/*"] }}
[[policy]]
name = "deploys"
plugin = "{GUESTS}/approval.wasm"
[[step]]
name = "check"
plugin = "step-check"
[[notifier]]
name = "inbox"
plugin = "notify-webhook"
settings = {{ url = "{self.gogs}/control/inbox/browser", secret = "inbox-key" }}
grants = {{ hosts = [{{ url = "{self.gogs}", addresses = "loopback" }}], secrets = ["inbox-key"] }}
""")
        self.start_server()
        self.admin = open(self.path("data", "admin.token"), encoding="utf-8").read().strip()
        self.beespace("secret", "set", "inbox-key", "--plugins", text=secrets.token_hex(32))
        self.beespace("repo", "enable", self.repo)
        os.mkdir(self.path("work"))
        self.git("init", "--quiet")
        with open(self.path("work", "README.md"), "w", encoding="utf-8") as file:
            file.write("# Hive\n")

    def start_server(self):
        server = self.spawn(f"{BIN}/beespace", "server", "--config", self.path("beespace.toml"), log="server.log")
        self.server = server

        def is_ready():
            expect(server.poll() is None, "the server exited: " + open(self.path("server.log"), encoding="utf-8").read()[-2000:])
            try:
                return fetch(f"{self.url}/readyz")
            except (urllib.error.URLError, ConnectionError):
                return None
        wait("the server", is_ready)

    def stop_server(self):
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(30)
        self.started.remove(self.server)

    def beespace(self, *arguments, text=None, must=True):
        environment = {**os.environ, "BEESPACE_SERVER": self.url, "BEESPACE_TOKEN": self.admin}
        command = [f"{BIN}/beespace", *arguments]
        return subprocess.run(command, input=text, text=True, check=must, env=environment, stdout=subprocess.PIPE, timeout=20).stdout

    def git(self, *arguments):
        who = ["-c", "user.name=Ada Bee", "-c", "user.email=ada@example.org"]
        subprocess.run(["git", "-C", self.path("work"), *who, *arguments], check=True, timeout=20)

    def push(self, pipeline, message, branch="main"):
        with open(self.path("work", ".beespace.yml"), "w", encoding="utf-8") as file:
            file.write(pipeline)
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        remote = self.gogs.replace("://", f"://{self.token}:x-oauth-basic@")
        self.git("push", "--quiet", "--force", f"{remote}/{self.repo}.git", f"HEAD:refs/heads/{branch}")

    def status(self, number):
        try:
            return json.loads(fetch(f"{self.url}/api/v1/repositories/{self.repo}/builds/{number}"))["status"]
        except urllib.error.HTTPError:
            return None

    def newest(self):
        """The number of the newest build."""
        return json.loads(fetch(f"{self.url}/api/v1/repositories/{self.repo}/builds?limit=1"))[0]["number"]

    def build(self, number, status):
        """Waits until a build is finished; it must have this status."""
        over = {"success", "failure", "declined", "error", "killed", "skipped"}
        found = wait(f"the end of build {number}", lambda: over & {self.status(number)}, 30)
        if found != {status}:
            raise Failed(f"build {number} is {found.pop()}, not {status}:\n{self.beespace('build', 'show', str(number), '--repo', self.repo, must=False)}")

    def stop(self):
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.started):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port():
    import socket
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Browser:
    """A window of chromium."""

    def __init__(self, world):
        driver = world.spawn("chromedriver", "--port=0", log="chromedriver.log")
        port = world.read_log("chromedriver.log", r"successfully on port (\d+)", driver).group(1)
        self.world = world
        self.base = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                     "--disable-component-update", "--disable-sync", f"--user-data-dir={world.path('profile')}",
                     "--window-size=1200,760", "--disable-dev-shm-usage", "--hide-scrollbars"]
        wanted = {"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": {"args": arguments}}
        answer = self.call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.base += "/" + answer["sessionId"]

    def call(self, method, path, data=None):
        try:
            return json.loads(fetch(self.base + path, data, method))["value"]
        except urllib.error.HTTPError as error:
            problem = json.loads(error.read())["value"]
            raise Failed(f"{path}: {problem['error']}: {problem['message'].splitlines()[0]}") from error

    def cdp(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, path, base=None):
        self.call("POST", "/url", {"url": (base or self.world.url) + path})

    def windows(self):
        return self.call("GET", "/window/handles")

    def new_window(self, kind):
        handle = self.call("POST", "/window/new", {"type": kind})["handle"]
        self.switch(handle)

    def switch(self, handle):
        self.call("POST", "/window", {"handle": handle})

    def js(self, script):
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def text(self):
        return self.element("body", "/text", "GET")

    def find(self, selector, using="css selector"):
        return self.call("POST", "/element", {"using": using, "value": selector})[ELEMENT]

    def element(self, selector, action, method="POST", data=None, using="css selector"):
        body = {} if data is None and method == "POST" else data
        end = time.monotonic() + 10
        while True:
            try:
                return self.call(method, f"/element/{self.find(selector, using)}{action}", body)
            except Failed as problem:
                # A live page may replace the element between the two calls, and during a navigation there is none.
                passing = "stale element" in str(problem) or (selector == "body" and "no such element" in str(problem))
                if not passing or time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def click(self, selector):
        self.element(selector, "/click")

    def click_link(self, text):
        self.element(text, "/click", using="partial link text")

    def type(self, selector, text):
        self.element(selector, "/value", data={"text": text})

    def press(self, key):
        keys = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    def address(self):
        return self.call("GET", "/url").removeprefix(self.world.url)

    def see(self, *texts):
        """Waits until all of these texts are on the page."""
        for text in texts:
            wait(f"{text!r} on {self.address()}", lambda text=text: text in self.text(), 15)

    def complaints(self):
        """The messages in the browser's console: errors and violations of the content security policy."""
        errors = [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]
        # Every build creates a network on this machine, which makes the browser drop its connections; the pages reconnect.
        return [message for message in errors if "net::ERR_NETWORK_CHANGED" not in message]

    def dark(self, on):
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def narrow(self, on):
        if on:
            self.cdp("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
        else:
            self.cdp("Emulation.clearDeviceMetricsOverride")

    def picture(self, name, whole=True):
        image = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        with open(os.path.join(PICTURES, f"{name}.png"), "wb") as file:
            file.write(base64.b64decode(image))


def builds_of_all_kinds(world):
    """1 green, 2 denied, 3 with an invalid file, 4 failed, 5 with hostile names."""
    world.push(GREEN, "Fill three cells")
    world.build(1, "success")
    world.push(DENIED, "Use another image")
    world.build(2, "declined")
    world.push(INVALID, "Misspell a key")
    world.build(3, "error")
    world.push(FAILING, "Poke a hole into cell 3")
    world.build(4, "failure")
    world.push(GREEN, HOSTILE_MESSAGE, HOSTILE_BRANCH)
    world.build(5, "success")


def walk_to_a_log(browser, world):
    browser.open("/")
    browser.see("Fill three cells", "Use another image", world.repo)
    browser.click_link("Fill three cells")
    browser.see("success", "Ada Bee", "check", "build", "test")
    browser.click(".step:nth-child(3) a.name")
    browser.see("cell 2 filled", "<b>not bold</b>", "Succeeded")
    colour = browser.js("return getComputedStyle(document.querySelector('.a-f208')).color")
    expect(colour == "rgb(255, 135, 0)", f"colour 208 of the log is {colour}")
    number = browser.js("return [...document.querySelectorAll('#log .l')].find(l => l.textContent.includes('cell 2 filled')).id")
    browser.click(f"#{number} > a")
    expect(browser.address().endswith(f"#{number}"), f"the link of the line leads to {browser.address()}")
    expect(browser.js("return document.querySelector('.l.chosen')?.textContent.includes('cell 2 filled')"), "the line is not highlighted")


def see_reasons(browser, world):
    browser.open(f"/{world.repo}/2")
    browser.see("declined", "docker.io/library/alpine", "nothing ran")
    line = DENIED.splitlines().index("    image: docker.io/library/alpine:latest") + 1
    expect(browser.js(f"return document.querySelector('#F{line}.marked + .note')?.textContent"), f"no diagnostic below line {line}")
    expect(browser.js("return document.querySelector('.callout .help')?.textContent"), "the denial shows no remedy")
    browser.open(f"/{world.repo}/3")
    browser.see("rnu", "run")
    browser.open(f"/{world.repo}/4")
    browser.see("failure", "error: the comb bends")
    browser.open(f"/{world.repo}/5")
    browser.see("<script>document.title='owned'</script>")
    title = browser.js("return document.title")
    expect(title.startswith("Fill <script>"), f"the title is {title!r}")


def sign_in(browser, world):
    browser.open(f"/{world.repo}/1")
    browser.click_link("Sign in")
    browser.type("#token", "wrong")
    browser.click("main button.primary")
    browser.see("Wrong admin token")
    browser.complaints()  # The 401 response is reported there and expected.
    browser.type("#token", world.admin)
    browser.click("main button.primary")
    wait("the page from before", lambda: browser.address() == f"/{world.repo}/1")
    browser.see("Sign out", "Restart")


def keys(browser, world):
    """Every key in the help, and the theme button."""
    focused = "return document.activeElement.getAttribute('href')"
    browser.open(f"/{world.repo}")
    rows = browser.js("return [...document.querySelectorAll('[data-row]')].map((row) => (row.matches('a') ? row : row.querySelector('a')).getAttribute('href'))")
    expect(len(rows) > 2, f"only {len(rows)} rows")
    for key, row in (("j", 0), ("j", 1), ("k", 0)):
        browser.press(key)
        expect(browser.js(focused) == rows[row], f"{key} leads to {browser.js(focused)}, not to {rows[row]}")
    theme = "return document.documentElement.dataset.theme"
    before = browser.js(theme)
    browser.click("[data-do=theme]")
    expect(browser.js(theme) not in (None, before), f"the theme stays {before}")
    browser.click("[data-do=theme]")
    expect(browser.js(theme) == "light", "a second press does not go back to light")
    browser.call("DELETE", "/cookie/theme")  # The system setting applies again.
    browser.open(f"/{world.repo}/1/1/2")
    pressed = "return document.querySelector('[data-do=times]').getAttribute('aria-pressed')"
    for wanted in ("true", "false"):
        browser.press("t")
        expect(browser.js(pressed) == wanted, f"t: times are {browser.js(pressed)}")
    expect(not browser.js("return document.querySelector('[data-do=follow]')"), "a finished log cannot be followed")
    expect(browser.js("return document.querySelector('[data-do=next-mark]').disabled"), "there is no error to go to")
    browser.press("u")
    wait("the build's page", lambda: browser.address() == f"/{world.repo}/1")
    browser.open(f"/{world.repo}/4/1/3")
    in_view = """return [...document.querySelectorAll('#log .l.bad')].filter((line) => {
        const { top, bottom } = line.getBoundingClientRect();
        return top > 0 && bottom < innerHeight;
    }).map((line) => line.querySelector('span').textContent)"""
    for key, error in ((None, "the comb bends"), ("p", "cell 3 leaks"), ("n", "the comb bends")):
        if key:
            browser.press(key)
        wait(f"{error!r} to be in view", lambda: browser.js(in_view) == [f"error: {error}"])


def restart(browser, world):
    browser.press("?")
    browser.see("next / previous marked line of the log")
    browser.press("\ue00c")  # Escape
    browser.click("form[action$='/restart'] button")
    repeats = "return document.querySelector('.facts a[href$=\"/1\"]')?.textContent"
    wait("the new build's page", lambda: browser.js(repeats) == f"{world.repo} #1")
    browser.js("window.stayed = true")
    wait("a green build", lambda: browser.js("return document.querySelector('.heading .pill').textContent") == "success")
    expect(browser.js("return window.stayed"), "the page was reloaded")
    icon = browser.js("return document.querySelector('link[rel=icon]').href")
    expect("icon-success" in icon, f"the tab still shows {icon}")


def follow(browser, world):
    """A log that grows while it is open: the number of lines is updated."""
    world.beespace("build", "restart", "1", "--repo", world.repo)
    wait("build 7 to run", lambda: world.status(7) not in (None, "pending"))
    browser.open(f"/{world.repo}/7/1/2")
    browser.see("cell 3 filled", "not bold")
    rows, count = browser.js("return [document.querySelectorAll('#log .l').length, document.querySelector('#count').textContent]")
    expect(count == f"{rows} lines", f"{rows} lines are shown, but the count is {count!r}")
    world.build(7, "success")


ROWS = 2_000  # The most lines that a page shows.
SLOW = GREEN.replace("for cell in 1 2 3; do echo \"cell $cell filled\"; sleep 0.4; done", "for cell in $(seq 12); do echo \"cell $cell filled\"; sleep 1; done")


def behind_a_buffering_proxy(browser, world):
    """A proxy that holds responses back until they end, as nginx does: the page is live all the same."""
    proxy = Proxy(world.url.removeprefix("http://"), is_buffering=True)
    number = world.newest() + 1
    world.beespace("build", "restart", "1", "--repo", world.repo)
    wait(f"build {number} to run", lambda: world.status(number) == "running")
    browser.open(f"/{world.repo}/{number}", proxy.url)
    browser.js("window.stayed = true")
    pills = "return [...document.querySelectorAll('.step .pill')].map((pill) => pill.textContent)"
    wait("all steps to be green", lambda: (found := browser.js(pills)) and set(found) == {"success"}, 60)
    expect(browser.js("return window.stayed"), "the page was reloaded")
    world.build(number, "success")
    browser.open("/")
    proxy.stop()


def restart_behind_a_proxy(browser, world):
    """The server is updated behind a proxy while a log is open: the page reports it, and continues at the line."""
    proxy = Proxy(world.url.removeprefix("http://"), is_buffering=False)
    number = world.newest() + 1
    world.push(SLOW, "Fill twelve cells")
    wait(f"build {number} to run", lambda: world.status(number) == "running")
    browser.open(f"/{world.repo}/{number}/1/2", proxy.url)
    browser.js("window.stayed = true")
    browser.see("cell 2 filled")
    offline = "return !document.querySelector('#offline').hidden"
    expect(not browser.js(offline), "a live page says that it is not")
    world.stop_server()
    wait("the page to say that it is not live", lambda: browser.js(offline))
    wait("a response 502", lambda: proxy.bad_gateways > 0)
    world.start_server()
    wait("the page to be live again", lambda: not browser.js(offline), 60)
    wait("the end of the step", lambda: browser.js("return document.querySelector('h1 + .pill').textContent") == "success", 60)
    cells = browser.js("return [...document.querySelectorAll('#rows .l > span')].map((line) => line.textContent).filter((text) => /^cell \\d+ filled$/.test(text))")
    expect(cells == [f"cell {cell} filled" for cell in range(1, 13)], f"the lines are {cells}")
    expect(browser.js("return window.stayed"), "the page was reloaded")
    browser.complaints()  # The 502 responses are reported there.
    world.build(number, "success")
    browser.open("/")
    proxy.stop()


def seven_windows(browser, world):
    """A browser has six connections to a server. Live pages leave some for the next one."""
    first = browser.windows()[0]
    number = world.newest() + 1
    world.push(SLOW, "Fill twelve cells again")
    wait(f"build {number} to run", lambda: world.status(number) == "running")
    # Windows are all in view and share one stream. Of tabs one is in view; the others close their stream, which matters where the
    # browser has no shared workers.
    for kind in ("window", "tab"):
        for path in ["/", f"/{world.repo}"] * 4:
            browser.new_window(kind)
            if kind == "tab":
                browser.cdp("Page.addScriptToEvaluateOnNewDocument", source="delete window.SharedWorker")
            browser.open(path)
            browser.see("Fill twelve cells again")
            shares = browser.js("return typeof SharedWorker")
            expect(shares == ("function" if kind == "window" else "undefined"), f"SharedWorker is {shares} in a {kind}")
    browser.new_window("tab")
    browser.open(f"/{world.repo}/{number}/1/2")
    browser.see("cell 1 filled")
    for handle in browser.windows():
        if handle != first:
            browser.switch(handle)
            browser.call("DELETE", "/window")
    browser.switch(first)
    world.build(number, "success")


def many_lines(browser, world):
    """100,000 lines while the page is open: a bounded number of rows."""
    number = world.newest() + 1
    world.push(GREEN.replace("for cell in 1 2 3; do echo \"cell $cell filled\"; sleep 0.4; done", "echo begin; sleep 4; seq 100000"), "Count cells")
    wait(f"build {number} to run", lambda: world.status(number) == "running")
    browser.open(f"/{world.repo}/{number}/1/2")
    browser.see("begin")
    browser.js("""window.most = 0;
        new MutationObserver(() => { window.most = Math.max(window.most, document.querySelector("#rows").childElementCount); })
            .observe(document.querySelector("main"), { childList: true, subtree: true });""")
    wait("the last line", lambda: "not bold" in browser.js("return document.querySelector('#rows').lastElementChild.textContent"), 120)
    rows, most = browser.js("return [document.querySelector('#rows').childElementCount, window.most]")
    # While a frame is shown, its new rows are there together with the old ones.
    expect(rows <= ROWS and most <= 2 * ROWS, f"{rows} rows, at most {most}")
    texts = browser.js("return [...document.querySelectorAll('#rows .l > span')].map((line) => line.textContent)")
    counted = [int(text) for text in texts if text.isdigit()]
    expect(counted == list(range(counted[0], 100_001)), f"the lines from {counted[:1]} to {counted[-1:]} have gaps")
    world.build(number, "success")
    wait("the count", lambda: browser.js("return document.querySelector('#count').textContent").startswith("1000"))
    # An address can name any number of lines.
    browser.open(f"/{world.repo}/{number}/1/2?from=50000#L50010-L99999999999")
    chosen = browser.js("return document.querySelectorAll('.chosen').length")
    expect(chosen == ROWS - 10, f"{chosen} lines are marked")
    for narrow in (True, False):
        browser.narrow(narrow)
        wrong = browser.js(LAYOUT)
        expect(not wrong, f"the numbers of a long log wrap: {wrong}")
    browser.open(f"/{world.repo}/{number}/1/2#L99999999999")
    browser.see("not bold")


def tools_of_a_log(browser, world):
    """Folding, wrapping and searching."""
    browser.open(f"/{world.repo}/1/1/2")
    shown = "return [...document.querySelectorAll('#rows > .l')].filter((row) => row.offsetParent !== null && row.checkVisibility()).length"
    before = browser.js(shown)
    browser.click("#rows .fold")
    folded = browser.js(shown)
    expect(0 < folded < before, f"{before} lines, {folded} after folding a command")
    browser.click("#rows .fold")
    expect(browser.js(shown) == before, "a second click does not unfold the command")
    took = browser.js("return [...document.querySelectorAll('#rows > .trace')].map((row) => row.dataset.took)")
    expect(took and all(took), f"the durations of the commands are {took}")
    browser.press("w")
    expect(browser.js("return getComputedStyle(document.querySelector('#rows .l > span')).whiteSpace") == "pre", "the key w does not stop wrapping")
    browser.press("w")
    browser.type("#search", "CELL 2\ue007")
    wait("the result of the search", lambda: "search=" in browser.address())
    matches = browser.js("return [...document.querySelectorAll('#rows > .match > span')].map((line) => line.textContent)")
    expect("cell 2 filled" in matches, f"the matches are {matches}")
    browser.see("contain")
    stops = browser.js("return [...document.querySelectorAll('#rows a')].filter((link) => link.tabIndex >= 0).length")
    expect(stops == 0, f"{stops} line numbers are stops of the Tab key")


def approve(browser, world):
    """Of two blocked builds, the second runs after an approval."""
    world.blocked = world.newest() + 1
    for number in (world.blocked, world.blocked + 1):
        world.push(DEPLOY, f"Deploy the hive, {number}")
        wait(f"build {number} to be blocked", lambda number=number: world.status(number) == "blocked")
    browser.open(f"/{world.repo}/{number}")
    browser.see("blocked", "it changes what people use", "deploys")
    for action in ("approve", "decline"):
        shown = browser.js(f"return document.querySelector(\"form[action$='/{action}'] button\").checkVisibility()")
        expect(not shown, f"one press of a button could {action} the build")
    browser.click(".answer:has(form[action$='/approve']) > summary")
    browser.type("form[action$='/approve'] input[name=reason]", "the bees agree")
    # A live page that is replaced keeps what was typed, and where. A page that comes into view again is fetched again.
    browser.js("document.querySelector('.answer').dataset.old = true")

    def is_replaced():
        for hidden in ("true", "false"):
            browser.js(f"Object.defineProperty(document, 'hidden', {{ configurable: true, get: () => {hidden} }}); document.dispatchEvent(new Event('visibilitychange'))")
        time.sleep(1)
        return not browser.js("return document.querySelector('.answer').dataset.old")
    wait("the page to be replaced", is_replaced)
    browser.type("form[action$='/approve'] input[name=reason]", " with it")
    browser.click("form[action$='/approve'] button")
    world.build(number, "success")
    browser.see("was approved by admin", ": the bees agree with it")
    expect(world.status(world.blocked) == "blocked", "an approval applied to another build")


def pages(world):
    """Every page, with the content that is there without scripts."""
    build = f"/{world.repo}"
    return {
        "builds": ("/", "Fill three cells"),
        "owner": (f"/{world.repo.split('/')[0]}", "Fill three cells"),
        "repository": (build, "Poke a hole"),
        "build-green": (f"{build}/1", "Fill three cells"),
        "build-denied": (f"{build}/2", "nothing ran"),
        "build-invalid": (f"{build}/3", "rnu"),
        "build-failed": (f"{build}/4", "error: the comb bends"),
        "build-hostile": (f"{build}/5", "<script>"),
        "build-blocked": (f"{build}/{world.blocked}", "it changes what people use"),
        "log": (f"{build}/1/1/2", "cell 2 filled"),
        "log-failed": (f"{build}/4/1/3", "error: cell 3 leaks"),
        "login": ("/-/login", "Admin token"),
        "deliveries": ("/-/deliveries", f"{world.repo} #5"),
        "notices": ("/-/notices", "inbox"),
        "not-found": ("/no/such/9", "404"),
    }


# What must not happen to the parts of a page, whatever its width: [part, whether one is wrong].
LAYOUT = """
    const wrong = [
        [".took, .log .l > a", (part) => { const text = document.createRange(); text.selectNodeContents(part); return new Set([...text.getClientRects()].map(({ top }) => top)).size > 1; }],
        [".excerpt .extent", (line) => !line.closest(".log")],
        [".logbar .bar-step strong", (part) => part.scrollWidth > part.clientWidth],
        [".row > .pill", (pill) => { const [a, b] = [pill, pill.nextElementSibling].map((part) => part.getBoundingClientRect()); return a.right + 4 > b.left && a.bottom > b.top; }],
        ["[data-do=theme]", (button) => !button.checkVisibility()],
    ];
    return wrong.flatMap(([parts, is]) => [...document.querySelectorAll(parts)].filter(is).map((part) => `${parts}: ${part.textContent}`)).slice(0, 5);
"""


def look_at_all(browser, world):
    for dress, dark, narrow in [("light", False, False), ("dark", True, False), ("narrow", False, True)]:
        browser.dark(dark)
        browser.narrow(narrow)
        for name, (path, _) in pages(world).items():
            browser.open(path)
            shade = browser.js("return Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
            expect((shade < 128) == dark, f"the background of {path} is {shade}/255 bright ({dress})")
            wide = browser.js("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            expect(wide <= 0, f"{path} is {wide} px wider than the window ({dress})")
            high = browser.js("const top = document.querySelector('.top'); return top.scrollHeight - top.clientHeight")
            expect(high <= 0, f"the header of {path} is too small for its content ({dress})")
            wrong = browser.js(LAYOUT)
            expect(not wrong, f"{path} clips or wraps ({dress}): {wrong}")
            browser.picture(f"{name}-{dress}")
            unmeant = [text for text in browser.complaints() if name != "not-found" or "404" not in text]
            expect(not unmeant, f"the console of {path}: {unmeant}")
    browser.dark(False)
    browser.narrow(False)


def without_script(browser, world):
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    for path, text in pages(world).values():
        browser.open(path)
        browser.see(text)
    browser.cdp("Emulation.setScriptExecutionDisabled", value=False)


PARTS = (walk_to_a_log, see_reasons, keys, tools_of_a_log, sign_in, restart, follow, behind_a_buffering_proxy, restart_behind_a_proxy,
         seven_windows, many_lines, approve)


def main():
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="beespace-browser.", ignore_cleanup_errors=True) as folder:
        world = World(folder)
        browser = None
        try:
            world.start()
            builds_of_all_kinds(world)
            browser = Browser(world)
            for part in PARTS:
                part(browser, world)
                expect(not (complaints := browser.complaints()), f"{part.__name__}: the console reports {complaints}")
                print(f"{part.__name__}: {time.monotonic() - begin:.1f} s")
            browser.open(f"/{world.repo}/2")
            browser.cdp("Emulation.setDeviceMetricsOverride", width=1200, height=760, deviceScaleFactor=1, mobile=False)
            browser.picture("readme", whole=False)
            look_at_all(browser, world)
            without_script(browser, world)
            print(f"browser: all of it, {time.monotonic() - begin:.1f} s; pictures in {PICTURES}")
        except (Failed, subprocess.SubprocessError, OSError) as problem:
            if browser:
                browser.picture("problem")
            sys.exit(f"tests/browser: {problem}")
        finally:
            if browser:
                browser.call("DELETE", "")
            world.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("tests/browser: not done within its time"))
    main()
