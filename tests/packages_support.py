"""Shared by tests of package builds: small packages of each kind, and a platform to build them for."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import pytest

from polylocal.packages.file_store import FileStore
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun, Store
from polylocal.store.build_lists import BuildResults, Version
from polylocal.store.rows import Arch, BuildList, NewFile, NewPackage, Platform, Project, Repository, Run, User

COMMIT = "a" * 40


def sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def metadata(**fields: str) -> bytes:
    """`Requires_Python="x"` → `Requires-Python: x`"""
    return "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in fields.items()).encode()


def wheel(name: str = "hello", version: str = "1.0", **fields: str) -> bytes:
    folder = f"{name}-{version}.dist-info"
    return make_zip({f"{folder}/METADATA": metadata(Metadata_Version="2.1", Name=name, Version=version, **fields)})


def whole_wheel(name: str, version: str, module: str = "") -> bytes:
    """A wheel that pip can install, with one module."""
    folder = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": module.encode(),
        f"{folder}/METADATA": metadata(Metadata_Version="2.1", Name=name, Version=version),
        f"{folder}/WHEEL": metadata(Wheel_Version="1.0", Generator="test", Root_Is_Purelib="true", Tag="py3-none-any"),
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{folder}/RECORD"))
    return make_zip({**files, f"{folder}/RECORD": record.encode()})


def sdist(name: str = "hello", version: str = "1.0", **fields: str) -> bytes:
    folder = f"{name}-{version}"
    return make_tar({f"{folder}/PKG-INFO": metadata(Metadata_Version="2.1", Name=name, Version=version, **fields)})


def make_zip(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return made.getvalue()


def make_tar(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


@cache
def deb(name: str = "hello", version: str = "1.0-1", program: str = "", **fields: str) -> bytes:
    """A binary package, always with the same bytes. `program`: the content of `/usr/bin/<name>`; "": no such file.

    `fields`: additional fields of its control file, as for `metadata`.
    """
    about = {"Package": name, "Version": version, "Architecture": "all", "Maintainer": "A <a@b.c>", **fields}
    control = metadata(**about, Description="a test")
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar": _tree({"control": (control, 0o644)}),
        "data.tar": _tree({f"usr/bin/{name}": (program.encode(), 0o755)} if program else {}),
    }
    return b"!<arch>\n" + b"".join(_ar_member(part, content) for part, content in parts.items())


def _ar_member(name: str, content: bytes) -> bytes:
    """A member of an ar archive. Time, owner and group are 0; contents begin at even offsets."""
    return (
        f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        + content
        + b"\n" * (len(content) % 2)
    )


def _tree(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """A tar archive of root's files, path → (content, mode), with their parent folders."""
    folders = {parent for path in files for parent in PurePosixPath(path).parents}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for folder in sorted(folders | {PurePosixPath(".")}):
            member = tarfile.TarInfo("./" if folder == PurePosixPath(".") else f"./{folder}/")
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        for path, (content, mode) in files.items():
            member = tarfile.TarInfo(f"./{path}")
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def dsc(name: str = "hello", version: str = "1.0-1", *parts: str) -> str:
    files = "".join(f" {'0' * 32} 1 {part}\n" for part in parts)
    return f"Format: 3.0 (quilt)\nSource: {name}\nVersion: {version}\nFiles:\n{files}"


@dataclass
class Ground:
    """A platform, a repository with a project in it, and an architecture: the inputs of a build list."""

    store: Store
    user: User
    project: Project
    platform: Platform  # the build is made for it and saved to it
    repository: Repository
    arch: Arch
    image: str = "base"
    numbers: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, store: Store, user: User, project: Project, kind: str = "pypi", **values: Any) -> Ground:
        platform = store.platforms.create(user, {"name": "cocos", "distrib_type": kind, **values})
        repository = store.platforms.add_repository(platform, {"name": "main"})
        store.platforms.add_project(repository, project)
        return cls(store, user, project, platform, repository, store.platforms.arches(["x86_64"])[0])

    def queue(self, cmd: str = "true", *, project: Project | None = None, **values: Any) -> BuildList:
        """Create a waiting build list, as the API does."""
        project = project or self.project
        row = {
            "save_to_repository_id": self.repository.id,
            "build_for_platform_id": self.platform.id,
            "arch_id": self.arch.id,
            "update_type": "bugfix",
            "project_version": "master",
            "commit_hash": COMMIT,
            "auto_publish_status": "none",
            "auto_create_container": False,
            "use_save_to_repository": True,
            "include_repos": [self.repository.id],
            "extra_repositories": [],
            "extra_build_lists": [],
            "extra_params": {},
            **values,
        }
        resources, variables = row.pop("resources", None), row.pop("env_vars", None)
        config = {"version": 1, "kind": "job", "build": {"image": self.image}, "run": {"cmd": cmd}}
        environment = {"resources": resources, "env_vars": variables}
        environment = {name: value for name, value in environment.items() if value}
        config |= {"environment": environment} if environment else {}
        reference = self.store.projects.reference_code(project, {"commit": row["commit_hash"]})
        run = NewRun(Kind.PACKAGE, config=config, resources=resources, code_id=reference.id)
        return self.store.build_lists.create(project, self.user, run, row)

    def run(self, build_list: BuildList) -> Run:
        return self.store.runs.by_pk(build_list.run_pk)

    def again(self, build_list: BuildList) -> BuildList:
        return self.store.build_lists.of_run(build_list.run_pk)

    def end(
        self, build_list: BuildList, exit_code: int = 0, *packages: NewPackage, results: tuple[NewFile, ...] = ()
    ) -> BuildList:
        """End a build with these results."""
        run = self.run(build_list)
        self.store.runs.transition(run, Status.RUNNING)
        ended = self.store.build_lists.conclude(
            run,
            Status.FAILED if exit_code else Status.SUCCEEDED,
            "ended",
            details=None,
            recorded={"exit_code": exit_code},
            results=BuildResults(packages, results),
            is_newer=compare_as_text,
        )
        assert ended
        return self.again(build_list)

    def mark_published(self, build_list: BuildList, into: str = "release") -> BuildList:
        """Mark a complete build as published."""
        lists = self.store.build_lists
        if self.again(build_list).status != 7000:
            assert lists.publish(build_list, self.user, again=True)
        assert lists.set_published(build_list, into, None)
        return self.again(build_list)


def compare_as_text(mine: Version, published: Version, equal_is_enough: bool) -> bool:
    """A simple order of versions."""
    return mine[1] > published[1] or (equal_is_enough and mine[1] == published[1])


def package(name: str = "hello", version: str = "1.0", content: bytes | None = None, **more: Any) -> NewPackage:
    content = content if content is not None else f"{name} {version}".encode()
    values = {"file_name": f"{name}-{version}.whl", "type": "binary", "epoch": None, "release": "", **more}
    return NewPackage(sha1=sha1(content), name=name, version=version, size=len(content), **values)


def store_wheel(file_store: FileStore, name: str, version: str, **fields: str) -> NewPackage:
    """Store a wheel in the file store, and return its package."""
    content = wheel(name, version, **fields)
    file_store.save(io.BytesIO(content))
    return package(name, version, content, file_name=f"{name}-{version}-py3-none-any.whl")


def hide_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the libraries of the extra `packages` impossible to import, as in an installation without it."""
    for name in ("pysequoia", "rpmfile", "rpmfile.headers", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
