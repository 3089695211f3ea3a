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
        server = self.spawn(f"{BIN}/beespace", "server", "--config", self.path("beespace.toml"), log="server.log")

        def is_ready():
            expect(server.poll() is None, "the server exited: " + open(self.path("server.log"), encoding="utf-8").read()[-2000:])
            try:
                return fetch(f"{self.url}/readyz")
            except (urllib.error.URLError, ConnectionError):
                return None
        wait("the server", is_ready)
        self.admin = open(self.path("data", "admin.token"), encoding="utf-8").read().strip()
        self.beespace("secret", "set", "inbox-key", "--plugins", text=secrets.token_hex(32))
        self.beespace("repo", "enable", self.repo)
        os.mkdir(self.path("work"))
        self.git("init", "--quiet")
        with open(self.path("work", "README.md"), "w", encoding="utf-8") as file:
            file.write("# Hive\n")

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

    def open(self, path):
        self.call("POST", "/url", {"url": self.world.url + path})

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
    browser.press(".")
    expect(browser.js("return document.querySelector('[data-do=follow]').getAttribute('aria-pressed')") == "true", "the key . does not follow the log")
    browser.press("u")
    wait("the build's page", lambda: browser.address() == f"/{world.repo}/1")
    browser.open(f"/{world.repo}/4/1/3")
    in_view = """return [...document.querySelectorAll('#log .l.bad')].filter((line) => {
        const { top, bottom } = line.getBoundingClientRect();
        return top > 0 && bottom < innerHeight;
    }).map((line) => line.querySelector('span').textContent)"""
    for key, error in ((None, "cell 3 leaks"), ("n", "the comb bends"), ("p", "cell 3 leaks")):
        if key:
            browser.press(key)
        wait(f"{error!r} to be in view", lambda: browser.js(in_view) == [f"error: {error}"])


def restart(browser, world):
    browser.press("?")
    browser.see("next / previous error in the log")
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


def approve(browser, world):
    """Build 8 stays blocked, build 9 runs after an approval."""
    for number in (8, 9):
        world.push(DEPLOY, f"Deploy the hive, {number}")
        wait(f"build {number} to be blocked", lambda number=number: world.status(number) == "blocked")
    browser.open(f"/{world.repo}/9")
    browser.see("blocked", "it changes what people use", "deploys")
    browser.click("form[action$='/approve'] button")
    world.build(9, "success")
    expect(world.status(8) == "blocked", "an approval applied to another build")


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
        "build-blocked": (f"{build}/8", "it changes what people use"),
        "log": (f"{build}/1/1/2", "cell 2 filled"),
        "log-failed": (f"{build}/4/1/3", "error: cell 3 leaks"),
        "login": ("/-/login", "Admin token"),
        "deliveries": ("/-/deliveries", f"{world.repo} #5"),
        "notices": ("/-/notices", "inbox"),
        "not-found": ("/no/such/9", "404"),
    }


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


def main():
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="beespace-browser.", ignore_cleanup_errors=True) as folder:
        world = World(folder)
        browser = None
        try:
            world.start()
            builds_of_all_kinds(world)
            browser = Browser(world)
            for part in (walk_to_a_log, see_reasons, keys, sign_in, restart, follow, approve):
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
