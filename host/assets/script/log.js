// The page of a step's log. The server renders a window of lines. This adds new lines while the step runs, and tools for reading.

const logElement = () => find("#log");
const rowsElement = () => find("#rows");
const rowNumber = (row) => Number(row.id.slice(1));

// New lines

/** Rows that are not on the page yet, by line. */
const incoming = new Map();
let newestLine = 0;
let logPosition = 0;
let frame = 0;
let following = false;

const isLogLive = () => logElement()?.hasAttribute("data-running") ?? false;
const mostRows = () => Number(logElement().dataset.rows);

function logAddress() {
  const { stream } = logElement().dataset;
  return logPosition ? stream.replace(/after=\d+/, `after=${logPosition}`) : stream;
}
function takeLogEvent(name, data, id) {
  if (name === "row") {
    logPosition = Number(id);
    takeRow(JSON.parse(data));
    return;
  }
  if (name !== "disk-full") logElement().removeAttribute("data-running");
  refreshSoon();
  connectStream();
}
function takeRow({ line, html }) {
  incoming.set(line, html);
  newestLine = Math.max(newestLine, line);
  // No more rows wait than are shown: the oldest are gone before anybody could read them.
  if (incoming.size > mostRows()) incoming.delete(incoming.keys().next().value);
  frame ||= requestAnimationFrame(showRows);
}
/** Shows all rows that wait, in one go. */
function showRows() {
  frame = 0;
  showCount();
  const rows = rowsElement();
  let last = rows.lastElementChild ? rowNumber(rows.lastElementChild) : 0;
  // Whoever reads further up keeps the lines in view. New ones that do not fit, or do not join, wait until they are wanted.
  const [next] = incoming.keys();
  const joins = last === 0 || next === undefined || next <= last + 1;
  if (!following && !(joins && rows.childElementCount + incoming.size <= 2 * mostRows())) return;
  let html = "";
  for (const [line, row] of incoming) {
    if (line <= last) {
      replaceRow(line, row);
      continue;
    }
    if (line > last + 1 && last > 0) {
      // Lines between were skipped, so what is above would not join.
      rows.replaceChildren();
      html = "";
    }
    html += row;
    last = line;
  }
  incoming.clear();
  const part = document.createElement("template");
  part.innerHTML = html;
  const fresh = [...part.content.children];
  rows.append(part.content);
  prepareRows(fresh);
  showMarkState();
  if (following) {
    while (rows.childElementCount > mostRows()) rows.firstElementChild.remove();
    scrollToEnd();
  }
  showEarlier();
}
function replaceRow(line, html) {
  const old = document.getElementById(`L${line}`);
  if (!old) return;
  old.insertAdjacentHTML("afterend", html);
  const { hidden } = old;
  const row = old.nextElementSibling;
  old.remove();
  prepareRows([row]);
  row.hidden = hidden;
}
function showCount() {
  const count = Math.max(newestLine, Number(logElement().dataset.count));
  find("#count").textContent = `${count} line${count === 1 ? "" : "s"}`;
  logElement().dataset.digits = String(count).length;
}
function showEarlier() {
  const first = rowsElement().firstElementChild;
  const from = first ? Math.max(1, rowNumber(first) - mostRows()) : 1;
  const link = find("#earlier");
  link.hidden = !first || rowNumber(first) === 1;
  find("a", link).href = `?from=${from}`;
}
function scrollToEnd() {
  scrollTo(0, document.body.scrollHeight);
}
function follow(on) {
  following = on && isLogLive();
  setPressed("follow", following);
  if (!following) return;
  showRows();
  scrollToEnd();
}
/** Keeps the rows when the rest of the page is replaced: the page's own stream adds to them. */
function keepLog(fresh) {
  const [log, freshLog] = [logElement(), find("#log", fresh)];
  if (!log || !freshLog) return;
  if (incoming.size > 0) showRows();
  // The stream carries on where it is; the page's other values are new.
  const { stream } = log.dataset;
  const wasLive = isLogLive();
  find("#rows", freshLog).replaceWith(rowsElement());
  find("#earlier", freshLog).replaceWith(find("#earlier"));
  freshLog.dataset.stream = stream;
  // The stream ends by itself, when it has sent the last line.
  freshLog.toggleAttribute("data-running", wasLive);
  const search = find("#search");
  const freshSearch = find("#search", fresh);
  if (search && freshSearch) freshSearch.value = search.value;
}

// Commands: a row that echoes a command starts a group, which can be folded, and has the duration of the command.

const isCommand = (row) => row.classList.contains("trace");

function prepareRows(rows) {
  let folded = rows.length > 0 && isFoldedBefore(rows[0]);
  for (const row of rows) {
    if (isCommand(row)) {
      folded = false;
      addFold(row);
    }
    row.hidden = folded;
  }
  showDurations();
}
function isFoldedBefore(row) {
  const before = row.previousElementSibling;
  return before !== null && (before.hidden || find(".fold", before)?.getAttribute("aria-expanded") === "false");
}
function addFold(row) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "fold";
  button.dataset.do = "fold";
  button.setAttribute("aria-expanded", "true");
  button.setAttribute("aria-label", "Output of this command");
  row.lastElementChild.before(button);
}
function toggleFold(button) {
  const isOpen = button.getAttribute("aria-expanded") === "false";
  button.setAttribute("aria-expanded", String(isOpen));
  for (let row = button.parentElement.nextElementSibling; row && !isCommand(row); row = row.nextElementSibling) row.hidden = !isOpen;
}
function unfold(row) {
  if (!row.hidden) return;
  let command = row;
  while (command && !isCommand(command)) command = command.previousElementSibling;
  if (command) toggleFold(find(".fold", command));
  else row.hidden = false;
}
/** Shows how long each command took: until the next one began, or until the step ended. */
function showDurations() {
  const commands = all("#rows > .trace");
  const { end, later } = logElement().dataset;
  commands.forEach((row, index) => {
    const next = commands[index + 1]?.dataset.at ?? (later === undefined ? end : undefined);
    if (next !== undefined && row.dataset.at !== undefined) row.dataset.took = duration(next - row.dataset.at);
  });
}
function duration(milliseconds) {
  const tenths = Math.max(0, Math.round(milliseconds / 100));
  const [minutes, seconds] = [Math.floor(tenths / 600), (tenths % 600) / 10];
  return minutes === 0 ? `${seconds.toFixed(1)} s` : `${minutes} min ${Math.floor(seconds)} s`;
}

// What is shown of a line. The choice is kept in the browser.

const options = { times: false, wrap: true };
const isOptionOn = (name) => (localStorage.getItem(name) ?? String(options[name])) === "true";

function setPressed(name, on) {
  for (const button of all(`[data-do="${name}"]`)) button.setAttribute("aria-pressed", String(on));
}
function showOption(name, on) {
  logElement()?.classList.toggle(name, on);
  setPressed(name, on);
}
function toggleOption(name) {
  if (!logElement()) return;
  const on = !isOptionOn(name);
  localStorage.setItem(name, String(on));
  showOption(name, on);
}

// Lines in the address

function chosenRange() {
  const found = /^#L(\d{1,15})(?:-L(\d{1,15}))?$/.exec(location.hash);
  return found && [Number(found[1]), Number(found[2] ?? found[1])].sort((a, b) => a - b);
}
/** Marks the lines of the range that are on the page: a range can name any number of lines. */
function markRange(scroll) {
  if (!rowsElement()) return;
  for (const line of all("#rows > .chosen")) line.classList.remove("chosen");
  const range = chosenRange();
  if (!range) return;
  const [first, last] = range;
  const start = document.getElementById(`L${first}`);
  // The line is not on this page: load the window that contains it.
  const from = String(Math.max(1, first - 100));
  if (!start && rowsElement().childElementCount > 0 && new URLSearchParams(location.search).get("from") !== from) {
    location.replace(`?from=${from}${location.hash}`);
    return;
  }
  for (let row = start; row && rowNumber(row) <= last; row = row.nextElementSibling) row.classList.add("chosen");
  if (scroll && start) {
    unfold(start);
    start.scrollIntoView({ block: "center" });
  }
}
function chooseLine(event) {
  const link = event.target.closest("#rows > .l > a");
  if (!link || event.ctrlKey || event.metaKey) return;
  // Change the URL to the line's link without reloading the page.
  event.preventDefault();
  const number = rowNumber(link.parentElement);
  const other = (event.shiftKey && chosenRange()?.[0]) || number;
  const [first, last] = [Math.min(number, other), Math.max(number, other)];
  const { search } = find("a", document.getElementById(`L${first}`) ?? link.parentElement);
  history.replaceState(null, "", `${search}#L${first}${first === last ? "" : `-L${last}`}`);
  markRange(false);
}

// Marked lines: those that a search found, else those that look like errors

const markedLines = () => {
  const found = all("#rows > .match");
  return found.length > 0 ? found : all("#rows > .bad");
};
let shownMark = null;
function showMark(line) {
  shownMark = line ?? null;
  if (!line) return;
  unfold(line);
  line.scrollIntoView({ block: "center" });
}
function nextMark(step) {
  const lines = markedLines();
  if (lines.length === 0) {
    if (logElement()) announce("No marked lines");
    return;
  }
  follow(false);
  // Start at the line shown last if it is still in view, else at the middle of the window.
  const top = (line) => visibleRow(line).getBoundingClientRect().top;
  const isInView = shownMark?.isConnected && top(shownMark) >= 0 && top(shownMark) < innerHeight;
  const from = isInView ? top(shownMark) : innerHeight / 2;
  const index = step > 0 ? lines.findIndex((line) => top(line) > from) : lines.findLastIndex((line) => top(line) < from);
  showMark(lines.at(index === -1 ? (step > 0 ? 0 : -1) : index));
}

/** The row, or the command that it is folded into. */
function visibleRow(row) {
  while (row.hidden && row.previousElementSibling) row = row.previousElementSibling;
  return row;
}
function showMarkState() {
  for (const button of all('[data-do="next-mark"]')) button.disabled = markedLines().length === 0;
}

// Copying

async function copyLines() {
  const chosen = all("#rows > .chosen");
  const rows = chosen.length > 0 ? chosen : all("#rows > .l");
  await writeClipboard(rows.map((row) => row.lastElementChild.textContent).join("\n") + "\n");
  announce(`Copied ${rows.length} line${rows.length === 1 ? "" : "s"}`);
  const label = find('[data-do="copy"] > span');
  const { textContent } = label;
  label.textContent = "Copied";
  setTimeout(() => { label.textContent = textContent; }, 1500);
}
async function writeClipboard(text) {
  // Browsers have a clipboard for pages from HTTPS and loopback only.
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// Start

/** What the script knows about the log and the server does not; after each refresh of the page. */
function showLogState() {
  if (!logElement()) return;
  for (const name of Object.keys(options)) showOption(name, isOptionOn(name));
  if (following) scrollToEnd();
  setPressed("follow", following &&= isLogLive());
  showMarkState();
  showCount();
  showDurations();
}
function startLog() {
  const log = logElement();
  if (!log) return;
  find(".rail [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  prepareRows(all("#rows > .l"));
  showLogState();
  markRange(true);
  document.addEventListener("click", chooseLine);
  if (!chosenRange()) {
    const match = find("#rows > .match");
    if (match) showMark(match);
    else if (log.dataset.failure) showMark(document.getElementById(`L${log.dataset.failure}`));
    else if (log.hasAttribute("data-at-end")) scrollToEnd();
  }
  if (!isLogLive()) return;
  if (!chosenRange()) follow(true);
  // Scrolling up stops following the log.
  addEventListener("wheel", ({ deltaY }) => { if (deltaY < 0) follow(false); }, { passive: true });
  addEventListener("touchmove", () => follow(false), { passive: true });
}
addEventListener("hashchange", () => markRange(true));
