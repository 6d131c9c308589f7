"""The keys that repositories are signed with, one for each platform (OpenPGP, RFC 4880).

A key is a private file in the home folder. Backups contain it; responses and containers never do.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from polylocal.errors import PackageError
from polylocal.files.disk import is_transient, write_private
from polylocal.packages import extra
from polylocal.text import visible

if TYPE_CHECKING:
    from pysequoia import Cert, Tsk

_KNOW_ED25519 = ("deb", "pypi")
_GENERATING = threading.Lock()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """A key pair. `secret`: the armored secret key, which contains the public key."""

    secret: str

    @classmethod
    def generate(cls, platform: str, kind: str | None) -> Key:
        """Generate a key that does not expire. Its user ID names the platform. `kind`: the platform's `distrib_type`.

        Kinds whose package managers all support Ed25519 get such a key. The others get an RSA key of 3072 bits, which
        takes a second: GnuPG 2.0, in older releases with rpm, does not support Ed25519. A personal platform has no
        `distrib_type`, and its packages can be of every kind.
        """
        from pysequoia import CipherSuite, Tsk

        suite = CipherSuite.Cv25519 if kind in _KNOW_ED25519 else CipherSuite.RSA3k
        return cls(str(Tsk.generate(f"{platform} packages <{platform}@polylocal>", cipher_suite=suite)))

    @cached_property
    def _pair(self) -> Tsk:
        from pysequoia import Tsk

        return Tsk.from_bytes(self.secret.encode())

    @cached_property
    def _certificate(self) -> Cert:
        return self._pair.extract_certificate()

    @property
    def public(self) -> str:
        """The armored public key."""
        return str(self._certificate)

    @property
    def fingerprint(self) -> str:
        """40 hex digits."""
        return self._certificate.fingerprint

    def sign_clearly(self, text: bytes) -> bytes:
        """Return the text with its signature, as in `InRelease`."""
        from pysequoia import SignatureMode, sign

        return sign(self._pair.signer(), text, mode=SignatureMode.CLEAR)

    def sign_detached(self, content: bytes) -> bytes:
        """Return an armored signature, as in `repomd.xml.asc`."""
        from pysequoia import SignatureMode, sign

        return sign(self._pair.signer(), content, mode=SignatureMode.DETACHED)


class Keys:
    """The keys under `folder`, by the name of their platform. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, platform: str, kind: str | None) -> Key:
        """The key of a platform. It is generated if there is none. `kind`: the platform's `distrib_type`.

        Raises PackageError: the extra `packages` is not installed, or the file is not a key. The file is not replaced,
        because clients have the key that it contained. The message names the file by its path relative to the home
        folder, since all users of the platform can read the message.
        """
        path = self._path(platform)
        with extra.needed_for("a signature of a repository"):
            import pysequoia  # noqa: F401
        with _GENERATING:
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                key = Key.generate(platform, kind)
                self._folder.mkdir(mode=0o700, exist_ok=True)
                write_private(path, key.secret)
                log.info("a key was generated that signs the repositories of %s: %s", platform, key.fingerprint)
                return key
            except OSError as error:
                if is_transient(error):
                    raise
                raise self._unusable_key(path, error.strerror or str(error)) from error
        try:
            key = Key(content.decode("ascii"))
            key.sign_detached(b"")  # fails for a public key, which can be parsed as well
        except Exception as error:  # pysequoia raises plain exceptions
            # the message contains a backtrace
            raise self._unusable_key(path, visible.one_line(str(error).partition("\n")[0])) from error
        return key

    def has(self, platform: str) -> bool:
        """Whether a platform has a file for its key. The file may be unusable."""
        return self._path(platform).exists()

    def _path(self, platform: str) -> Path:
        return self._folder / f"{platform}.asc"

    def _unusable_key(self, path: Path, why: str) -> PackageError:
        return PackageError(
            f"The file {self._folder.name}/{path.name} in the home folder of the daemon is not an OpenPGP secret key"
            f" that can sign ({why}); restore it from a backup. If there is none, move it away: the next publication"
            f" generates a new key, which the users of the platform must install"
        )
