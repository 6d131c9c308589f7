"""Failures of a build that the engine caused, after which the build is repeated."""

from __future__ import annotations

import pytest

from polylocal.runner.building import _ENGINE_ERROR


@pytest.mark.parametrize(
    ("error", "is_engines"),
    [
        ("failed to update the store state of sandbox: failed to update store for *libnetwork.sbState", True),
        ("connection error: transport is closing: unknown", True),
        ("The command '/bin/sh -c pip install grpcio' returned a non-zero code: 1", False),
        ("The command '/bin/sh -c apt-get install\ncontainerd' returned a non-zero code: 100", False),
        ("failed to get digest sha256:f3099e: open /var/lib/docker/image/f3099e: no such file or directory", True),
        ('unable to find image "sha256:fb95a7"', True),
        ("COPY failed: file not found in build context", False),
    ],
)
def test_whose_failure_it_is(error: str, is_engines: bool) -> None:
    assert bool(_ENGINE_ERROR.match(error)) is is_engines
