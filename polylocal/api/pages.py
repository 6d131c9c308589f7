"""The HTML pages of polylocal's own: errors, and the form for a token. Pure."""

import base64
import hashlib
import html

from starlette.responses import HTMLResponse, Response

_STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem }
input { font: inherit; width: 100%; padding: .4rem; margin: .4rem 0 } .error { color: #b00020 }"""
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title} · polylocal</title>
<style>{style}</style>
<h1>{title}</h1>{text}</html>
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# the form redirects to a server's own origin, and browsers apply `form-action` to redirects, too
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self' http://*.localhost:*;"
    " frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",  # for browsers without frame-ancestors
}
ONE_ORIGIN_NOTICE = """<p>At this address all notebooks and tensorboards share one origin with this page: a program in
one of them can use the others as you. Open only pages of people whom you trust, or use polylocal on the machine that it
runs on.</p>"""

PUBLISHED_NOTICE = """<p>Here the ports of notebooks and tensorboards are published on 127.0.0.1, since this machine
does not reach the addresses of containers: a program that leads your browser to such a port is sent your session.
Open only pages of people whom you trust.</p>"""


def page(status: int, title: str, text: str) -> Response:
    """`text` is HTML."""
    body = text if text.startswith("<") else f"<p>{text}</p>"
    return HTMLResponse(_PAGE.format(title=title, style=_STYLE, text=body), status_code=status, headers=HEADERS)


def form(path: str, error: str = "") -> str:
    """A form that asks for a token and then opens `path`. HTML."""
    message = f'<p class="error">{html.escape(error)}</p>' if error else ""
    return f"""{message}<p>This page needs a token; <code>polylocal token</code> prints yours.</p>
<form method="post" action="/polylocal/v1/session"><input type="hidden" name="next" value="{html.escape(path)}">
<input type="password" name="token" placeholder="token" autocomplete="off" autofocus required>
<button>Go on</button></form>"""


def login_link(url: str) -> str:
    """A link from a server's own origin to the log-in. HTML."""
    return f'<p>You are not logged in here. <a href="{html.escape(url)}">Open the page again</a>.</p>'


def retry_form(origin: str, again: str, path: str) -> str:
    """For a browser that could not reach a server's own origin: try again, or open the page here. HTML."""
    return f"""<p>This page has an address of its own, <code>{html.escape(origin)}</code>, so that no program in it
can use your other pages. Your browser did not get there: some browsers do not know names below
<code>localhost</code>.</p>
<p><a href="{html.escape(again)}">Try again</a></p>
<form method="post" action="/polylocal/v1/session/one-origin">
<input type="hidden" name="next" value="{html.escape(path)}">
<p>Or open it here, where it shares one origin with all other notebooks and tensorboards: a program in it can then use
those as you.</p><button>Open it here</button></form>"""
