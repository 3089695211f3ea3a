// Progressive enhancement: pages work without this script. It adds live updates, log following and keyboard shortcuts.

const root = document.documentElement;
root.classList.add("has-script");
const find = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];

// Times

const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
function ago(date) {
  const passed = (Date.now() - date) / 1000;
  if (passed < 10) return "just now";
  if (passed > 30 * 86400) return date.toISOString().slice(0, 10);
  const [unit, length] = units.find(([, seconds]) => passed >= seconds) ?? units[3];
  const count = Math.floor(passed / length);
  return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
}
function refreshTimes() {
  for (const time of all("time[datetime]")) time.textContent = ago(new Date(time.dateTime));
}
setInterval(refreshTimes, 15000);

// Theme. It is kept in a cookie, so that the server can render the next page with it.

function toggleTheme() {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `theme=${root.dataset.theme}; path=${root.dataset.home}; max-age=31536000; samesite=lax`;
}

// Live pages: a change event makes the script fetch the page again and replace its main element.

let refreshing = null;
function refreshSoon() {
  clearTimeout(refreshing);
  refreshing = setTimeout(refresh, 200);
}
async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = find("main", page);
  const old = find("main");
  if (!fresh || !old) return;
  document.title = page.title;
  const icon = find('link[rel="icon"]', page);
  if (icon) find('link[rel="icon"]').href = icon.getAttribute("href");
  // Keep the element of a followed log: its own event stream appends to it.
  const log = find("#log");
  const freshLog = find("#log", fresh);
  if (log && freshLog) freshLog.closest(".logcard").replaceWith(log.closest(".logcard"));
  const opened = all("details", old).map((details) => details.open);
  all("details", fresh).forEach((details, index) => { if (opened[index]) details.open = true; });
  const position = scrollY;
  const focused = document.activeElement?.getAttribute?.("href");
  old.replaceChildren(...fresh.childNodes);
  if (focused) all("a[href]", old).find((link) => link.getAttribute("href") === focused)?.focus({ preventScroll: true });
  scrollTo(0, position);
  if (log && freshLog?.hasAttribute("data-over")) finishLog(freshLog);
  if (!fresh.dataset.live) changes?.close();
}
const live = find("main")?.dataset.live;
const changes = live ? new EventSource(live) : null;
changes?.addEventListener("change", refreshSoon);
changes?.addEventListener("resync", refreshSoon);

// Logs

let following = false;
function setPressed(name, on) {
  for (const button of all(`[data-do="${name}"]`)) button.setAttribute("aria-pressed", String(on));
}
function follow(on) {
  following = on;
  setPressed("follow", on);
  if (on) scrollTo(0, document.body.scrollHeight);
}
function addRow(log, { line, html }) {
  const part = document.createElement("template");
  part.innerHTML = html;
  const known = document.getElementById(`L${line}`);
  if (known) known.replaceWith(part.content);
  else {
    log.insertBefore(part.content, find(":scope > .end:last-child", log));
    find("#count").textContent = `${line} line${line === 1 ? "" : "s"}`;
  }
  if (following) followSoon();
}
let frame = 0;
function followSoon() {
  frame ||= requestAnimationFrame(() => { frame = 0; scrollTo(0, document.body.scrollHeight); });
}
function finishLog(fresh) {
  const log = find("#log");
  log.removeAttribute("data-running");
  find(":scope > .end:last-child", log)?.remove();
  const end = find(":scope > .end:last-child", fresh);
  if (end) log.append(end);
  if (following) followSoon();
}
function showTimes(on) {
  find("#log")?.classList.toggle("times", on);
  setPressed("times", on);
  localStorage.setItem("times", on ? "1" : "");
}
function chosenRange() {
  const found = /^#L(\d+)(?:-L(\d+))?$/.exec(location.hash);
  return found && [Number(found[1]), Number(found[2] ?? found[1])].sort((a, b) => a - b);
}
function markRange(scroll) {
  for (const line of all(".l.chosen")) line.classList.remove("chosen");
  const range = chosenRange();
  if (!range) return;
  // The line is not on this page: load the window that contains it.
  const from = String(Math.max(1, range[0] - 100));
  if (find("#log .l") && !document.getElementById(`L${range[0]}`) && new URLSearchParams(location.search).get("from") !== from) {
    location.replace(`?from=${from}${location.hash}`);
    return;
  }
  for (let number = range[0]; number <= range[1]; number++) document.getElementById(`L${number}`)?.classList.add("chosen");
  if (scroll) document.getElementById(`L${range[0]}`)?.scrollIntoView({ block: "center" });
}
let shownError = null;
function showError(line) {
  shownError = line;
  line?.scrollIntoView({ block: "center" });
}
function nextError(step) {
  const errors = all("#log .l.bad");
  if (errors.length === 0) return;
  follow(false);
  // Start at the error shown last if it is still in view, else at the middle of the window.
  const top = (line) => line.getBoundingClientRect().top;
  const isInView = shownError?.isConnected && top(shownError) >= 0 && top(shownError) < innerHeight;
  const from = isInView ? top(shownError) : innerHeight / 2;
  const index = step > 0 ? errors.findIndex((line) => top(line) > from) : errors.findLastIndex((line) => top(line) < from);
  showError(errors.at(index === -1 ? (step > 0 ? 0 : -1) : index));
}
function startLog() {
  const log = find("#log");
  if (!log) return;
  find(".rail [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  showTimes(localStorage.getItem("times") === "1");
  markRange(true);
  log.addEventListener("click", (event) => {
    const link = event.target.closest(".l > a");
    if (!link || event.ctrlKey || event.metaKey) return;
    // Change the URL to the line's link without reloading the page.
    event.preventDefault();
    const number = Number(link.parentElement.id.slice(1));
    const other = (event.shiftKey && chosenRange()?.[0]) || number;
    const [first, last] = [Math.min(number, other), Math.max(number, other)];
    const { search } = find("a", document.getElementById(`L${first}`) ?? link.parentElement);
    history.replaceState(null, "", `${search}#L${first}${first === last ? "" : `-L${last}`}`);
    markRange(false);
  });
  if (!chosenRange() && log.dataset.failure) showError(document.getElementById(`L${log.dataset.failure}`));
  if (!log.hasAttribute("data-running")) return;
  const stream = new EventSource(log.dataset.stream);
  stream.addEventListener("row", (event) => addRow(log, JSON.parse(event.data)));
  stream.addEventListener("disk-full", refreshSoon);
  for (const last of ["end", "log-error"]) stream.addEventListener(last, () => { stream.close(); refreshSoon(); });
  if (!chosenRange()) follow(true);
  // Scrolling up stops following the log.
  addEventListener("wheel", (event) => { if (event.deltaY < 0) follow(false); }, { passive: true });
  addEventListener("touchmove", () => follow(false), { passive: true });
}
addEventListener("hashchange", () => markRange(true));

// Keyboard shortcuts and buttons

function moveRow(step) {
  const rows = all("[data-row]").map((row) => (row.matches("a") ? row : find("a", row))).filter(Boolean);
  const index = rows.indexOf(document.activeElement);
  rows[Math.min(rows.length - 1, Math.max(0, index + step))]?.focus();
}
function goUp() {
  const up = find("[data-up]") ?? all(".crumbs a").at(-1);
  if (up) location.href = up.href;
}
const actions = {
  theme: toggleTheme,
  keys: () => find("#keys").showModal(),
  follow: () => follow(!following),
  times: () => showTimes(!find("#log")?.classList.contains("times")),
  "next-error": () => nextError(1),
};
const keys = {
  "?": actions.keys, j: () => moveRow(1), k: () => moveRow(-1), u: goUp, n: () => nextError(1), p: () => nextError(-1),
  ".": actions.follow, t: actions.times,
};
document.addEventListener("click", (event) => actions[event.target.closest("[data-do]")?.dataset.do]?.());
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const action = keys[event.key];
  if (action) { event.preventDefault(); action(); }
});

refreshTimes();
startLog();
