// Live pages: a change event makes the script fetch the page again and replace its main element.
//
// A page has one event stream at most: that of its log while the log grows, which carries the changes of its build too, else that of
// all changes. A hidden page has none. All tabs share the stream of changes where the browser has shared workers.

const refreshInterval = 300;
const refreshRetry = 5000;

let refreshTimer = null;
let isRefreshing = false;
let isStale = false;
/** Refreshes at most once per interval, and never twice at the same time. */
function refreshSoon() {
  isStale = true;
  if (!isRefreshing) refreshTimer ??= setTimeout(refresh, refreshInterval);
}
async function refresh() {
  [refreshTimer, isRefreshing, isStale] = [null, true, false];
  let isShown = false;
  try {
    isShown = await fetchPage();
  } catch {
    // The server is away. The stream reports that.
  }
  isRefreshing = false;
  if (!isShown) refreshTimer ??= setTimeout(refresh, refreshRetry);
  else if (isStale) refreshSoon();
}
/** Whether the page could be fetched and is shown. */
async function fetchPage() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  // The session has ended: the browser follows the redirect to the sign-in page by itself.
  if (answer.redirected) location.reload();
  if (!answer.ok) return false;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (find("main", page)) replaceMain(page);
  return true;
}
// Nothing is replaced if nothing has changed: a replaced page loses its selection.
let served = find("main")?.innerHTML;
function replaceMain(page) {
  const [fresh, old] = [find("main", page), find("main")];
  if (fresh.innerHTML === served) return;
  served = fresh.innerHTML;
  if (document.title !== page.title) {
    document.title = page.title;
    announce(page.title);
  }
  const icon = find('link[rel="icon"]', page);
  if (icon) find('link[rel="icon"]').href = icon.getAttribute("href");
  keepLog(fresh);
  const opened = all("details", old).map((details) => details.open);
  all("details", fresh).forEach((details, index) => { if (opened[index]) details.open = true; });
  for (const { id, value } of all('input[type="text"][id], select[id]', old)) keepTyped(fresh, id, value);
  const position = scrollY;
  const active = document.activeElement;
  const focused = active?.getAttribute?.("href");
  const action = active?.dataset?.do;
  const field = active?.matches?.('input[type="text"][id]') ? active : null;
  const selection = field && [field.selectionStart, field.selectionEnd];
  old.replaceChildren(...fresh.childNodes);
  if (focused) all("a[href]", old).find((link) => link.getAttribute("href") === focused)?.focus({ preventScroll: true });
  if (action) find(`[data-do="${action}"]`, old)?.focus({ preventScroll: true });
  const freshField = field && document.getElementById(field.id);
  if (freshField) {
    freshField.focus({ preventScroll: true });
    freshField.setSelectionRange(...selection);
  }
  scrollTo(0, position);
  for (const name of ["live", "repository", "build"]) {
    if (fresh.dataset[name]) old.dataset[name] = fresh.dataset[name];
    else delete old.dataset[name];
  }
  showLogState();
  refreshTimes();
  connectStream();
}

/** Keeps what a person has typed when the page is replaced. */
function keepTyped(fresh, id, value) {
  const field = fresh.querySelector(`#${CSS.escape(id)}`);
  if (field && value) field.value = value;
}

/** Whether a change, or the loss of changes, is one of what the page shows. */
function concernsPage(change) {
  const { build, repository } = find("main").dataset;
  const changed = change.build ?? change.stage?.build ?? change.step?.build;
  if (build) return changed === build;
  return !repository || String(change.repository) === repository;
}

// A browser also closes streams when it leaves the page: that is nothing to report.
const offlineDelay = 1000;
let offlineTimer = null;
function showLive(isLive) {
  clearTimeout(offlineTimer);
  const note = find("#offline");
  if (isLive) note.hidden = true;
  else offlineTimer = setTimeout(() => { note.hidden = false; announce(note.textContent); }, note.hidden ? offlineDelay : 0);
}
// A page is a little older than its first stream, so it may have missed changes, too.
let mayHaveMissed = true;
/** Takes an event of the page's stream, whichever it is. */
function takeEvent(name, data, id) {
  if (name === "lost") {
    mayHaveMissed = true;
    showLive(false);
  } else if (name === "open") {
    showLive(true);
    if (mayHaveMissed) refreshSoon();
    mayHaveMissed = false;
  } else if (name === "change" || name === "resync") {
    if (data === "{}" || concernsPage(JSON.parse(data))) refreshSoon();
  } else takeLogEvent(name, data, id);
}

let worker = null;
/** Opens the stream of changes, shared with other tabs if possible. Returns a function that closes it. */
function openChanges(address) {
  const script = root.dataset.worker;
  if (!globalThis.SharedWorker || !script) return openStream(() => address, ["change", "resync"], takeEvent);
  if (!worker) {
    worker = new SharedWorker(script);
    worker.port.onmessage = ({ data: { name, data } }) => { if (stream?.address === address) takeEvent(name, data); };
  }
  worker.port.postMessage(address);
  return () => worker.port.postMessage(null);
}

let stream = null;
/** Opens the stream that the page needs now, and closes the one that it no longer needs. */
function connectStream() {
  const changes = find("main")?.dataset.live ?? null;
  const log = isLogLive() ? "log" : null;
  const wanted = document.hidden ? null : (log ?? changes);
  if (stream?.address === wanted || (!stream && !wanted)) return;
  closeStream();
  if (!wanted) {
    showLive(true);
    return;
  }
  stream = { address: wanted, close: () => {} };
  stream.close = log ? openStream(logAddress, ["row", "end", "log-error", "disk-full", "change", "resync"], takeEvent) : openChanges(changes);
}
function closeStream() {
  stream?.close();
  stream = null;
  mayHaveMissed = true;
}
function startLive() {
  document.addEventListener("visibilitychange", connectStream);
  addEventListener("pagehide", closeStream);
  addEventListener("pageshow", ({ persisted }) => { if (persisted) connectStream(); });
  connectStream();
}
