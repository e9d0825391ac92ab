"""ThreadingHTTPServer with its defaults: HTTP/1.0, a thread for each connection."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import common


class Handler(BaseHTTPRequestHandler):
    """Serves one command per connection."""

    def do_POST(self):
        """Verify, parse and answer one command."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not common.verified(self.headers["X-Slack-Request-Timestamp"],
                               self.headers["X-Slack-Signature"], body):
            self.send_error(401)
            return
        answer = json.dumps(common.hello(common.fields_of(body))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Write no access log, like the other peers."""


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
