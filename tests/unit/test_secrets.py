"""Secrets by name: one set for each user, unreadable for others, written atomically."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from polylocal.errors import InvalidInput, NotFound
from polylocal.files.secrets import SecretStore


@pytest.fixture
def secret_store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "secrets")


def modes(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_read(secret_store: SecretStore) -> None:
    secret_store.write("ann", "pip", {"PIP_TOKEN": "a\nb'\"$", "OTHER": "x"})
    assert secret_store.read("ann", "pip") == {"PIP_TOKEN": "a\nb'\"$", "OTHER": "x"}
    assert secret_store.read("ann", "pip", ["OTHER"]) == {"OTHER": "x"}
    assert secret_store.names("ann") == ["pip"]


def test_only_the_owner_can_read_the_files(secret_store: SecretStore, tmp_path: Path) -> None:
    secret_store.write("ann", "pip", {"A": "1"})
    secret_store.write("ann", "pip", {"A": "2"})
    folder = tmp_path / "secrets"
    assert [modes(folder), modes(folder / "ann"), modes(folder / "ann" / "pip")] == [0o700, 0o700, 0o600]
    assert [path.name for path in (folder / "ann").iterdir()] == ["pip"]


def test_users_have_their_own(secret_store: SecretStore) -> None:
    secret_store.write("ann", "pip", {"A": "1"})
    with pytest.raises(NotFound, match="bob has no secret `pip`; make it with `polylocal secret set pip VARIABLE"):
        secret_store.read("bob", "pip")
    assert secret_store.names("bob") == []


def test_a_value_that_is_not_there_is_named(secret_store: SecretStore) -> None:
    secret_store.write("ann", "pip", {"A": "1", "B": "2"})
    with pytest.raises(NotFound, match="has no `C`; it has A, B"):
        secret_store.read("ann", "pip", ["C"])


@pytest.mark.parametrize("name", ["../token", "a/b", "", ".", "a b", "x" * 129, ".pip.new"])
def test_names_lead_nowhere_else(secret_store: SecretStore, name: str) -> None:
    with pytest.raises(InvalidInput):
        secret_store.write("ann", name, {"A": "1"})
    with pytest.raises(NotFound):
        secret_store.read("ann", name)


@pytest.mark.parametrize("values", [{"a b": "x"}, {"1A": "x"}, {"": "x"}, {"A": ""}, {"A": "x\0"}, {"A=B": "x"}])
def test_a_value_that_can_not_be_a_variable_is_refused(secret_store: SecretStore, values: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        secret_store.write("ann", "pip", values)


def test_a_value_has_room_for_a_variable_and_no_more(secret_store: SecretStore) -> None:
    """The kernel accepts no variable above 128 KiB, so the container would not start."""
    longest = "ü" * (64 * 1024)
    secret_store.write("ann", "pip", {"A": longest})
    with pytest.raises(InvalidInput, match="The value of `B` has more than 65536 characters"):
        secret_store.write("ann", "pip", {"A": "x", "B": f"{longest}x"})
    assert secret_store.read("ann", "pip") == {"A": longest}


def test_removed_and_forgotten(secret_store: SecretStore) -> None:
    secret_store.write("ann", "pip", {"A": "1"})
    secret_store.write("ann", "npm", {"A": "1"})
    secret_store.remove("ann", "pip")
    assert secret_store.names("ann") == ["npm"]
    with pytest.raises(NotFound):
        secret_store.remove("ann", "pip")
    with secret_store.forgetting("ann"):
        assert secret_store.names("ann") == []
    with secret_store.forgetting("ann"):
        assert secret_store.names("ann") == []
    assert secret_store.names("ann") == []


# -- reuse of names ----------------------------------------------------------------------------------------------


def test_secrets_of_an_earlier_user_of_that_name_are_not_read(secret_store: SecretStore) -> None:
    secret_store.write("ann", "pip", {"A": "1"}, identity="2 yesterday")
    assert secret_store.read("ann", "pip", identity="2 yesterday") == {"A": "1"}
    with pytest.raises(NotFound, match="an earlier user named ann.*polylocal secret set pip VARIABLE --user ann"):
        secret_store.read("ann", "pip", identity="2 today")


def test_a_new_user_of_the_name_starts_empty(secret_store: SecretStore) -> None:
    secret_store.write("ann", "pip", {"A": "1"}, identity="2 yesterday")
    secret_store.write("ann", "aws", {"B": "2"}, identity="2 today")
    assert secret_store.names("ann") == ["aws"]
    assert secret_store.read("ann", "aws", identity="2 today") == {"B": "2"}


def test_secrets_of_the_version_before_belong_to_who_has_the_name(secret_store: SecretStore) -> None:
    secret_store.write("ann", "pip", {"A": "1"})
    assert secret_store.read("ann", "pip", identity="2 yesterday") == {"A": "1"}
    with pytest.raises(NotFound, match="earlier user"):
        secret_store.read("ann", "pip", identity="3 today")


def test_the_mark_is_no_secret(secret_store: SecretStore) -> None:
    secret_store.write("ann", "pip", {"A": "1"}, identity="2 yesterday")
    assert secret_store.names("ann") == ["pip"]
    with pytest.raises(NotFound):
        secret_store.read("ann", ".user")


class Refused(Exception):
    """An error that prevents the deletion of a user."""


@pytest.mark.parametrize(("users", "is_kept"), [({"ann"}, True), ({"bob"}, False)])
def test_a_kill_while_a_user_is_deleted_is_settled_by_the_next_start(
    tmp_path: Path, users: set[str], is_kept: bool
) -> None:
    """The next start checks whether the user still exists."""
    secret_store = SecretStore(tmp_path / "secrets")
    secret_store.write("ann", "aws", {"KEY": "of ann"})
    (tmp_path / "secrets" / "ann").rename(tmp_path / "secrets" / "ann.deleted")
    secret_store.finish_removals(users)
    assert secret_store.names("ann") == (["aws"] if is_kept else [])
    assert not (tmp_path / "secrets" / "ann.deleted").exists()


def test_a_user_who_is_not_deleted_after_all_keeps_them(tmp_path: Path) -> None:
    secret_store = SecretStore(tmp_path / "secrets")
    secret_store.write("ann", "aws", {"KEY": "of ann"})
    with pytest.raises(Refused), secret_store.forgetting("ann"):
        raise Refused
    assert secret_store.read("ann", "aws") == {"KEY": "of ann"}
