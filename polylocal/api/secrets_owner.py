"""The owner of the secrets of a cloned run. Pure.

A run names secrets by name only, and its code decides their use. So a clone gets the secrets of the user who wrote the
polyaxonfile, unless the user who clones it asks for their own.
"""

from polylocal.errors import NotAllowed
from polylocal.polyaxonfile import Specification
from polylocal.store.rows import Run, User


def of_clone(caller: User, original: Run, specification: Specification, *, wants_own: bool) -> int:
    """The id of the user whose secrets a restart, resume or copy gets. Raises NotAllowed.

    `specification`: of the new run. `wants_own`: the caller wants their own secrets.
    """
    owner = original.secrets_user_id
    if wants_own or owner == caller.id:
        return caller.id
    if not names_secrets(specification):
        # an admin keeps the owner: the code is still that user's, and a later restart may name a secret
        return owner if caller.is_superuser and owner is not None else caller.id
    if not caller.is_superuser and not names_secrets(original.specification):
        return caller.id  # no secrets were named before, and ordinary users restart the code of their own projects
    if owner is None:
        raise NotAllowed(_GONE.format(run=original.label))
    if not caller.is_superuser:
        raise NotAllowed(_OTHERS.format(run=original.label))
    return owner


def names_secrets(specification: Specification) -> bool:
    """Whether the run or its build gets secrets."""
    build = specification.config.get("build")
    environment = build.get("environment") if isinstance(build, dict) else None
    return bool(specification.secrets or (environment or {}).get("secret_refs"))


_GONE = (
    "The user whose secrets {run} names was deleted. Ask for your own secrets of these names: `secrets: mine`,"
    " --my-secrets on the command line."
)
_OTHERS = (
    "{run} names secrets of another user, which only they and admins may use again. Ask for your own secrets of these"
    " names: `secrets: mine`, --my-secrets on the command line."
)
