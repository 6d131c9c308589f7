"""What the daemon has of runs, whoever started them."""

from __future__ import annotations

from typing import Any

from support import eventually

from polylocal.client.http import Client, RunReference
from polylocal.statuses import is_done


def finished(client: Client, run: RunReference) -> dict[str, Any]:
    """The run when it is done. Its log is followed to the end, which costs less than to ask again and again."""
    if run.kind != "group":
        with client.logs(run, follow=True) as chunks:
            for _ in chunks:
                pass
    return eventually(lambda: (found := client.run(run)) and is_done(found["last_status"]) and found, 120)


def says(client: Client, run: RunReference, text: bytes) -> None:
    """Wait until the run has written this."""
    seen = b""
    with client.logs(run, follow=True) as chunks:
        for chunk in chunks:
            seen += chunk
            if text in seen:
                return
    raise AssertionError(f"{run} is done, and never wrote {text!r}: {seen!r}")


def log(client: Client, run: RunReference) -> bytes:
    with client.logs(run) as chunks:
        return b"".join(chunks)
