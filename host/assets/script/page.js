// Progressive enhancement: pages work without scripts. These add live updates, log following and keyboard shortcuts.

const root = document.documentElement;
root.classList.add("has-script");
const find = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];

/** Lets a screen reader speak. */
function announce(text) {
  find("#announcer").textContent = text;
}

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
