// A shared worker: one event stream per address for all tabs of the browser. A browser opens only six connections to a server that
// does not speak HTTP/2, and each stream holds one.

const streams = new Map();

function leave(port) {
  for (const [address, stream] of streams) {
    if (stream.ports.delete(port) && stream.ports.size === 0) {
      stream.close();
      streams.delete(address);
    }
  }
}

function join(port, address) {
  const stream = streams.get(address) ?? { ports: new Set(), state: null, close: null };
  stream.ports.add(port);
  if (stream.state) port.postMessage({ name: stream.state });
  if (stream.close) return;
  streams.set(address, stream);
  stream.close = openStream(() => address, ["change", "resync"], (name, data) => {
    if (name === "open" || name === "lost") stream.state = name;
    for (const each of stream.ports) each.postMessage({ name, data });
  });
}

// A page sends the address of the stream that it wants, or null when it wants none.
onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    leave(port);
    if (data) join(port, data);
  };
};
