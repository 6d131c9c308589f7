"""Whose secrets a run gets that somebody starts out of another one. Pure.

A run names secrets by name only, and its code decides what becomes of them. So they are those of the user who wrote the
polyaxonfile, whoever runs it again, unless that person says otherwise.
"""

from __future__ import annotations

from polylocal.errors import NotAllowed
from polylocal.polyaxonfile import Specification
from polylocal.store.rows import Run, User


def of_clone(caller: User, original: Run, specification: Specification, *, wants_own: bool) -> int:
    """The id of the user whose secrets a restart, resume or copy names. Raises NotAllowed.

    `specification` is the new run's; `wants_own`: the caller has asked for their own secrets.
    """
    owner = original.secrets_user_id
    if wants_own or owner == caller.id:
        return caller.id
    if not names_secrets(specification):
        # the code stays its first owner's: an admin's further restarts may add the name of a secret
        return owner if caller.is_superuser and owner is not None else caller.id
    if not caller.is_superuser and not names_secrets(original.specification):
        return caller.id  # nobody's were named before, and what an ordinary user restarts is their own project's code
    if owner is None:
        raise NotAllowed(_GONE.format(run=original.label))
    if not caller.is_superuser:
        raise NotAllowed(_OTHERS.format(run=original.label))
    return owner


def names_secrets(specification: Specification) -> bool:
    """Whether the run gets secrets, or the build that is made for it."""
    build = specification.config.get("build")
    environment = build.get("environment") if isinstance(build, dict) else None
    return bool(specification.secrets or (environment or {}).get("secret_refs"))


_GONE = (
    "The user whose secrets {run} names is gone. Say that your own secrets of these names are meant: `secrets: mine`,"
    " --my-secrets on the command line."
)
_OTHERS = (
    "{run} names secrets of another user, which only they and admins may use again. Say that your own secrets of these"
    " names are meant: `secrets: mine`, --my-secrets on the command line."
)
