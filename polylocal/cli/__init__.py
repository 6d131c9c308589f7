"""The command line. Commands print; they decide nothing."""

from __future__ import annotations

import sys

from polylocal import __version__
from polylocal.cli import streams


def main() -> None:
    """The program `polylocal`: an error is one line that says what to do."""
    try:
        with streams.guarded() as output:
            if sys.argv[1:] == ["--version"]:  # importing the parser of the command line takes five times as long
                output.write(f"polylocal {__version__}\n")
            else:
                _main()
    except BrokenPipeError:
        sys.exit(141)  # the reader of our output has left
    except streams.OutputError as error:
        with streams.guarded():
            _complain(str(error))


def _main() -> None:
    import typer

    from polylocal.cli import console
    from polylocal.cli.commands import app
    from polylocal.errors import InvalidInput, PolylocalError
    from polylocal.files.disk import is_trouble

    try:
        code = app(standalone_mode=False)  # what it raises is shown below, as everything is
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Abort:
        console.say("Aborted.", "red")
        sys.exit(1)
    except InvalidInput as error:
        messages = error.messages
        lines = (
            [f"{k}: {text}" for k, texts in messages.items() for text in texts]
            if isinstance(messages, dict)
            else messages
        )
        _complain(*lines)
    except PolylocalError as error:
        _complain(str(error))
    except (BrokenPipeError, streams.OutputError):
        raise
    except OSError as error:
        if not is_trouble(error):
            console.bug()
            sys.exit(1)
        where = error.filename or "the home folder"
        _complain(f"{where} can't be written: {error.strerror}; make room there, or take another folder with --home")
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own; from which module they are imported depends on its version
            console.wrong_usage(error)
            sys.exit(getattr(error, "exit_code", 2))
        console.bug()
        sys.exit(1)


def _complain(*lines: str) -> None:
    from polylocal.cli import console

    for line in lines:
        console.complain(f"polylocal: {line}")
    sys.exit(1)
