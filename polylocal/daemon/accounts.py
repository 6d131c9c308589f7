"""Creates the first user and the token file, and removes data of deleted users."""

import logging

from polylocal.errors import SetupError
from polylocal.files.disk import write_private
from polylocal.files.folders import remove_tree
from polylocal.files.secrets import SecretStore
from polylocal.paths import Home
from polylocal.settings import Settings
from polylocal.store import Store
from polylocal.store.rows import User
from polylocal.store.users import Users, personal_platform

log = logging.getLogger("polylocal.daemon")

MIN_TOKEN = 32  # characters, if other machines can reach the daemon


def create_first_user(users: Users, settings: Settings, home: Home) -> None:
    """Create the admin and the token file if they are missing. The database then accepts the token in the file."""
    names = {user.username for user in users.all()}
    if settings.user not in names:
        users.add(settings.user, is_superuser=True)
    admin = users.get(settings.user)
    if not home.token.exists() or not home.token.read_text().strip():
        write_private(home.token, users.new_token(admin) + "\n")
    users.save_token(admin, home.token.read_text().strip())


def finish_user_removals(store: Store, home: Home) -> None:
    """Finish removals that an earlier process began: a new user may get the name of a deleted one."""
    names = {user.username for user in store.users.all()}
    SecretStore(home.secrets).finish_removals(names)
    for folder in home.downloads.glob(f"*{personal_platform('')}"):
        if folder.name.removesuffix(personal_platform("")) not in names:
            remove_tree(folder)


def revoke(users: Users, user: User, home: Home) -> tuple[int, bool]:
    """Revoke all tokens of a user. Returns their number, and whether the token file got a new token for that reason."""
    token = home.token.read_text().strip() if home.token.exists() else ""
    held = users.by_token(token) if token else None
    count = users.revoke(user)
    if held is None or held.user.id != user.id:
        return count, False
    write_private(home.token, users.new_token(user) + "\n")
    return count, True


def check_exposure(settings: Settings, home: Home) -> None:
    """Warn if other machines can reach the daemon. Raises SetupError if the token is then too easy to guess."""
    if settings.is_private:
        return
    found = len(home.token.read_text().strip())
    if found < MIN_TOKEN:
        raise SetupError(
            f"{settings.host} is open to other machines, and the token in {home.token} has only {found} characters, not"
            f" {MIN_TOKEN}: delete that file, and the next start creates a new one"
        )
    log.warning(
        "%s is open to other machines: the token is the only protection, and nothing is encrypted", settings.host
    )
