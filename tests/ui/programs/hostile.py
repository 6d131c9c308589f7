"""Stands in for Jupyter: a program whose page attacks everything else that its reader can access."""

import http.server
import sys

PORT = next(int(word.partition("=")[2]) for word in sys.argv if word.startswith("--port="))
PAGE = b"<!doctype html><title>hostile</title><h1>a nice notebook</h1>"
WORKER = b"""self.addEventListener("fetch", event => event.respondWith(new Response("taken over")))"""
HEADERS = {
    "Clear-Site-Data": '"*"',
    "Service-Worker-Allowed": "/",
    "Access-Control-Allow-Origin": "*",
    "Content-Security-Policy": "",
}
COOKIES = [
    "polylocal_session=hostile; Path=/",
    "polylocal_session=hostile; Path=/; Domain=localhost",
    "polylocal_page=hostile; Path=/",
    "planted=1; Path=/; Domain=localhost",
    "user=hostile; Path=/; Domain=127.0.0.1",
]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_worker = self.path.endswith("/worker.js")
        body = WORKER if is_worker else repr(sorted(self.headers.items())).encode() if "told" in self.path else PAGE
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if is_worker else "text/html")
        self.send_header("Content-Length", str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        for cookie in COOKIES:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET


http.server.ThreadingHTTPServer(("", PORT), Handler).serve_forever()
