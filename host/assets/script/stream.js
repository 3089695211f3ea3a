// An event stream that is opened again after every failure. A browser reconnects by itself only as long as each response has the
// status 200; after one 502 of a proxy it gives up.

const firstRetry = 1000;
const longestRetry = 15000;

/**
 * Calls `take(name, data, id)` for each event with one of the `names`, for `open` and for `lost`. `address` is called for each
 * attempt. Returns a function that closes the stream.
 */
function openStream(address, names, take) {
  let source, timer;
  let delay = firstRetry;
  const connect = () => {
    source = new EventSource(address());
    source.addEventListener("open", () => { delay = firstRetry; take("open"); });
    source.addEventListener("error", () => {
      source.close();
      take("lost");
      // Clients of a server that restarts do not all come back at the same moment.
      timer = setTimeout(connect, delay * (0.75 + Math.random() / 2));
      delay = Math.min(2 * delay, longestRetry);
    });
    for (const name of names) source.addEventListener(name, ({ data, lastEventId }) => take(name, data, lastEventId));
  };
  connect();
  return () => { clearTimeout(timer); source.close(); };
}
