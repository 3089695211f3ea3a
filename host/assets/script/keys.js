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
  times: () => toggleOption("times"),
  wrap: () => toggleOption("wrap"),
  copy: copyLines,
  fold: toggleFold,
  "next-mark": () => nextMark(1),
};
const keys = {
  "?": actions.keys, j: () => moveRow(1), k: () => moveRow(-1), u: goUp, n: () => nextMark(1), p: () => nextMark(-1),
  ".": actions.follow, t: actions.times, w: actions.wrap, "/": () => find("#search")?.focus(),
};
document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-do]");
  if (button) actions[button.dataset.do]?.(button);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const action = keys[event.key];
  if (action) { event.preventDefault(); action(); }
});

refreshTimes();
startLog();
startLive();
