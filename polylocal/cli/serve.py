"""The command `serve`. This module must not import rich: the daemon would keep it in memory."""

import sys
from typing import Annotated

import typer

from polylocal.cli import streams
from polylocal.cli.context import HomeOption

HostOption = Annotated[str | None, typer.Option(help="The address to listen on; default 127.0.0.1.")]
PortOption = Annotated[int | None, typer.Option(help="The port to listen on; default 8000. 0 chooses a free port.")]
RunsOption = Annotated[int | None, typer.Option(help="How many runs may run at the same time; default 2.")]
EngineOption = Annotated[str | None, typer.Option(help="The address of the container engine, as in DOCKER_HOST.")]


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
        line = f"polylocal listens on {url}; `polylocal token` prints its token; Ctrl-C stops it, runs continue\n"
        streams.ErrorStream(sys.stderr).write(line)

    main.serve(read, ready)
