"""A stand-in for the Hub and for a file server: what `benchmarks.locate` fetches from.

    python hub_server.py FOLDER COMMIT

Serves FOLDER/NAME for every path that ends in /NAME, as a file of a data set at COMMIT,
and says of every data set that COMMIT is its newest.
Prints its address first; ends when its standard input does.
"""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER, COMMIT = Path(sys.argv[1]), sys.argv[2]


class Handler(BaseHTTPRequestHandler):
    """HEAD and GET of files, with the headers by which the Hub names a commit."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        file = FOLDER / Path(self.path.split("?")[0]).name
        about = self.path.startswith("/api/datasets/")
        body = json.dumps({"id": "owner/set", "sha": COMMIT}).encode() if about else b""
        body = file.read_bytes() if file.is_file() else body
        self.send_response(200 if file.is_file() or about else 404)
        if file.is_file():
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        print(self.command, self.path, file=sys.stderr, flush=True)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"http://127.0.0.1:{server.server_port}", flush=True)
sys.stdin.read()
