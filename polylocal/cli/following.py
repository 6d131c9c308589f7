"""Follows a run on the screen: the build's log, the run's log, the status history."""

import time

from polylocal.cli import console, groups
from polylocal.client.http import Client, Json, RunReference
from polylocal.statuses import is_done

POLL_S = 0.2
_SHOW_REASON_AFTER_S = 2.0


def follow(api: Client, run: RunReference) -> Json:
    """Show a run until it is done. Returns its final state."""
    if run.kind == "group":
        return groups.follow(api, run)
    found = _show_build(api, run) if run.kind != "build" else api.run(run)
    _copy_log(api, run)
    found = api.run(run)
    while not is_done(found["last_status"]):  # the stream was cut, for example by a restart of the daemon
        time.sleep(POLL_S)
        found = api.run(run)
    return found


def summary(api: Client, run: RunReference, found: Json) -> None:
    """Print the status history of a run and the folder of its outputs."""
    console.line()
    console.history(api.statuses(run))
    if found.get("outputs_path"):
        console.line(f"Outputs: {found['outputs_path']}", "bold")


def exit_code(found: Json) -> int:
    """The exit code of the run's program; 1 if the run was stopped or no program started."""
    if found["last_status"] == "succeeded":
        return 0
    code = found.get("exit_code")
    return code if isinstance(code, int) and 0 < code < 256 else 1


def _show_build(api: Client, run: RunReference) -> Json:
    shown: str | None = None
    waits = ""
    started = time.monotonic()
    while True:
        found = api.run(run)
        build = found["build_job"]
        if build and build != shown:
            shown = build
            _follow_build(api, RunReference(run.owner, run.project, "build", int(build.rpartition(".")[2])), found)
            started = time.monotonic()
            continue
        if found["last_status"] not in ("created", "building") or is_done(found["last_status"]):
            return found
        if time.monotonic() - started > _SHOW_REASON_AFTER_S:
            reason = api.find_run(run.kind, run.id)["waits_for"] or ""
            if reason and reason != waits:
                console.say(f"Waiting for {reason}", "dim")
                waits = reason
        time.sleep(POLL_S)


def _follow_build(api: Client, build: RunReference, found: Json) -> None:
    before = api.run(build)
    if before["last_status"] == "succeeded" and before["finished_at"] < found["created_at"]:
        console.say(f"{build}: the image exists already and is reused", "dim")
        return
    console.say(f"{build}: building the image", "bold")
    _copy_log(api, build)
    after = api.run(build)
    console.say(console.join(f"{build}: ", console.status(after["last_status"])))


def _copy_log(api: Client, run: RunReference) -> None:
    """Copy a log to standard output as it arrives, and end it with a line end."""
    last = b"\n"
    with api.logs(run, follow=True) as chunks:
        for chunk in chunks:
            console.log_bytes(chunk)
            last = chunk[-1:] or last
    if last != b"\n":
        console.log_bytes(b"\n")
