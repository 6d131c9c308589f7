"""Stands in for Jupyter: stores a secret in the browser, and reports which requests of other pages reached it."""

import http.server
import json
import sys

PORT = next(int(word.partition("=")[2]) for word in sys.argv if word.startswith("--port="))
PAGE = b"""<!doctype html><title>victim</title><h1>my notebook</h1>
<script>localStorage.secret ??= "kept"; document.cookie = "mine=1; path=/"</script>"""
seen: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_seen = self.path.endswith("/seen")
        body = json.dumps(seen).encode() if is_seen else PAGE
        if not is_seen:
            seen.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if is_seen else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET


http.server.ThreadingHTTPServer(("", PORT), Handler).serve_forever()
