"""git's hook `pre-receive`: refuses pushes of code beyond the limits.

Code is measured again before it is unpacked. So the hook measures only some of the pushed commits, to be fast.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from polylocal.errors import InvalidInput, PolylocalError
from polylocal.files.unpacking import Limits
from polylocal.git import command, tree_size
from polylocal.system import processes

MAX_REFS = 10_000  # in one push
_MAX_MEASURED = 20  # commits measured per push
_FOLDER = "polylocal-hooks"
_HOOK = '#!/bin/sh\nexec "$POLYLOCAL_PYTHON" -P -m polylocal.git.pre_receive\n'
_LIMITS, _PYTHON = "POLYLOCAL_CODE_LIMITS", "POLYLOCAL_PYTHON"
# git keeps a push's objects in a separate folder until the hook accepts it
_APART = ("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH")


def write_hook(repository: Path) -> Path:
    """Write the hook. Returns its folder, for git's `core.hooksPath`."""
    hook = repository / _FOLDER / "pre-receive"
    if not hook.exists() or hook.read_text() != _HOOK:
        hook.parent.mkdir(exist_ok=True)
        new = hook.with_name(f".{os.getpid()}.new")
        new.write_text(_HOOK)
        new.chmod(0o755)
        new.replace(hook)
    return hook.parent


def environment(limits: Limits) -> dict[str, str]:
    """Environment variables that the hook reads."""
    known = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return {**known, _PYTHON: sys.executable, _LIMITS: f"{limits.max_unpacked_mib} {limits.max_upload_files}"}


def check(lines: Iterable[str], git_dir: Path, limits: Limits, apart: Mapping[str, str]) -> None:
    """Check a push by its lines `<old> <new> <ref>`. Raises InvalidInput if code exceeds the limits."""
    commits = dict[str, None]()
    for number, line in enumerate(lines):
        if number >= MAX_REFS:
            raise InvalidInput([f"The push changes more than {MAX_REFS} branches and tags."])
        commits[line.split()[1]] = None
    some = [commit for commit in commits if commit.strip("0")][:_MAX_MEASURED]
    names = command.lines_of([f"{commit}^{{tree}}" for commit in some])
    done = command.run(
        "cat-file", "--batch-check=%(objectname)", git_dir=git_dir, env=apart, stdin=names, limits=processes.QUICK
    )
    for tree in dict.fromkeys(done.stdout.decode(errors="replace").split("\n")):
        if len(tree) == 40:  # otherwise the tag of an object without a tree
            tree_size.check(git_dir, tree, limits, apart)


def main() -> int:
    most_mib, most_files = os.environ[_LIMITS].split()
    apart = {name: os.environ[name] for name in _APART if name in os.environ}
    try:
        check(sys.stdin, Path(os.environ["GIT_DIR"]).absolute(), Limits(int(most_mib), int(most_files)), apart)
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return 1
    except PolylocalError as error:  # accepted: the code is measured again before it is unpacked
        print(f"The push was not measured: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
