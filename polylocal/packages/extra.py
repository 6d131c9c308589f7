"""The extra `packages`: libraries that only rpm packages, signatures and .deb files with zstd need."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from polylocal.errors import PackageError


@contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Guard an import from the extra. Raises PackageError: it is not installed. `what`: the operation that needs it."""
    try:
        yield
    except ImportError as error:
        raise PackageError(install_hint(what)) from error


def install_hint(what: str) -> str:
    """The message for an operation that needs the extra."""
    return f"{what} needs libraries that are not installed: pip install 'polylocal[packages]'"


def has(library: str) -> bool:
    """Whether a library of the extra is installed."""
    return find_spec(library) is not None
