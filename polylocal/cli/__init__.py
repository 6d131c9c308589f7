"""The command line. Commands only parse options and print results; decisions are made in other packages."""

import sys

from polylocal import __version__
from polylocal.cli import streams


def main() -> None:
    """Run the program `polylocal`. Prints each error as one line with advice."""
    try:
        with streams.guard() as output:
            if sys.argv[1:] == ["--version"]:  # importing the command line parser takes five times as long
                output.write(f"polylocal {__version__}\n")
            else:
                _main()
    except BrokenPipeError:
        sys.exit(141)  # the reader of our output has closed the pipe
    except streams.OutputError as error:
        with streams.guard():
            sys.exit(_complain(str(error)))


def _main() -> None:
    from polylocal.cli.commands import app

    try:
        code = app(standalone_mode=False)  # `_report` prints the errors
    except (BrokenPipeError, streams.OutputError):
        raise
    except Exception as error:
        code = _report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception) -> int:
    """Print an error. Returns the exit code."""
    import typer

    from polylocal.cli import console
    from polylocal.errors import InvalidInput, PolylocalError
    from polylocal.files.disk import is_trouble

    if isinstance(error, typer.Abort):
        console.say("Aborted.", "red")
        return 1
    if isinstance(error, InvalidInput):
        messages = error.messages
        lines = (
            [f"{k}: {text}" for k, texts in messages.items() for text in texts]
            if isinstance(messages, dict)
            else messages
        )
        return _complain(*lines)
    if isinstance(error, PolylocalError):
        return _complain(str(error))
    if isinstance(error, OSError) and is_trouble(error):
        where = error.filename or "the home folder"
        return _complain(
            f"can't write {where}: {error.strerror}; free some space, or choose another home folder with --home"
        )
    if hasattr(error, "format_message"):  # an error of typer; its class moves between typer's versions
        console.print_usage_error(error)
        return int(getattr(error, "exit_code", 2))
    console.print_traceback()
    return 1


def _complain(*lines: str) -> int:
    from polylocal.cli import console

    for line in lines:
        console.complain(f"polylocal: {line}")
    return 1
