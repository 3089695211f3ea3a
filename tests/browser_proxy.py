"""A reverse proxy in front of the server that the browser test opens pages through."""

import http.client
import http.server
import threading


class Proxy:
    """Forwards requests to `upstream` (host and port). Responds with 502 while the server is away, as nginx and others do.

    With `is_buffering` it holds a response back until the response is complete, unless the server asks for the opposite.
    """

    def __init__(self, upstream, is_buffering):
        proxy = self
        self.upstream, self.is_buffering = upstream, is_buffering
        self.bad_gateways = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                proxy.forward(self)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def forward(self, request):
        try:
            connection = http.client.HTTPConnection(self.upstream)
            connection.request("GET", request.path, headers=dict(request.headers))
            answer = connection.getresponse()
        except OSError:
            self.bad_gateways += 1
            request.send_error(502)
            return
        body = answer.read() if self.is_buffering and answer.getheader("x-accel-buffering") != "no" else None
        try:
            request.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                    request.send_header(name, value)
            request.end_headers()
            if body is not None:
                request.wfile.write(body)
                return
            while part := answer.read1():
                request.wfile.write(part)
                request.wfile.flush()
        except (OSError, http.client.HTTPException):
            pass  # One of the two sides has gone.
        finally:
            connection.close()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
