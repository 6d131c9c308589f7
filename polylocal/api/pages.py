"""The few pages of polylocal's own: a word about what is wrong, and the form that asks for a token. Pure."""

from __future__ import annotations

import html

from starlette.responses import HTMLResponse, Response


def page(status: int, title: str, text: str) -> Response:
    """`text` is HTML."""
    return HTMLResponse(_PAGE.format(title=title, text=text), status_code=status, headers={"Cache-Control": "no-store"})


def form(path: str, error: str = "") -> str:
    """Asks for a token, and goes on to `path`. HTML."""
    said = f'<p class="error">{html.escape(error)}</p>' if error else ""
    return f"""{said}This page is for those who have a token; <code>polylocal token</code> prints yours.</p>
<form method="post" action="/polylocal/v1/session"><input type="hidden" name="next" value="{html.escape(path)}">
<input type="password" name="token" placeholder="token" autocomplete="off" autofocus required>
<button>Go on</button></form><p>"""


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title} · polylocal</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem }}
input {{ font: inherit; width: 100%; padding: .4rem; margin: .4rem 0 }} .error {{ color: #b00020 }}</style>
<h1>{title}</h1><p>{text}</p></html>
"""
