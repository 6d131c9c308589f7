"""The command `serve`. A daemon keeps what its start has imported, so nothing here imports rich."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from polylocal.cli import streams
from polylocal.cli.context import HomeOption

HostOption = Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on; default 8000, 0 takes a free one.")]
RunsOption = Annotated[int | None, typer.Option(help="Runs at a time; default 2.")]
EngineOption = Annotated[str | None, typer.Option(help="The engine's address, as in DOCKER_HOST.")]


def serve(
    home: HomeOption = None,
    host: HostOption = None,
    port: PortOption = None,
    max_runs: RunsOption = None,
    engine: EngineOption = None,
    background: Annotated[bool, typer.Option("--background", hidden=True)] = False,
) -> None:
    """Run the daemon in the foreground."""
    from polylocal import settings
    from polylocal.daemon import daemon_log, main

    read = settings.load(home=home, host=host, port=port, max_runs=max_runs, engine=engine)
    daemon_log.configure(read, on_screen=not background)

    def ready(url: str) -> None:
        told = f"polylocal listens on {url}; its token: polylocal token; Ctrl-C ends it, runs go on\n"
        streams.Messages(sys.stderr).write(told)

    main.serve(read, ready)
