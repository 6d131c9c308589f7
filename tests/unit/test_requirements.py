"""Files that requirements include are in the image before the build steps."""

from __future__ import annotations

import pytest

from polylocal.errors import InvalidInput, NotFound
from polylocal.planning import requirements
from polylocal.planning.dockerfile import render
from polylocal.polyaxonfile import Build


def includes(files: dict[str, str], root: str = "requirements.txt") -> list[str]:
    def read(path: str) -> bytes:
        if path not in files:
            raise NotFound(path)
        return files[path].encode()

    return requirements.includes(root, read)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_requirements_are_read_by_their_byte_order_mark(encoding: str) -> None:
    files = {"requirements.txt": "-r base.txt\r\nnumpy\r\n".encode(encoding), "base.txt": b""}
    assert requirements.includes("requirements.txt", files.__getitem__) == ["base.txt"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-r base.txt", ["base.txt"]),
        ("-rbase.txt", ["base.txt"]),
        ("  -r   base.txt  # why", ["base.txt"]),
        ("--requirement base.txt", ["base.txt"]),
        ("--requirement=base.txt", ["base.txt"]),
        ("-c base.txt", ["base.txt"]),
        ("--constraint=./base.txt", ["base.txt"]),
        ("-r \\\n  base.txt", ["base.txt"]),
        ('-r "with blank.txt"', ["with blank.txt"]),
        ("\ufeff-r base.txt", ["base.txt"]),
        ("-r sub/../base.txt", ["base.txt"]),
        ("# -r base.txt", []),
        ("-r https://example.org/base.txt", []),
        ("-r file:///etc/base.txt", []),
        ("-r ../base.txt", []),
        ("-r ..", []),
        ("-r /base.txt", []),
        ("-r missing.txt", []),
        ("-r", []),
        ('-r "base.txt', []),
        ("--requirements base.txt", []),
        ("--require-hashes", []),
        ("requests # -r base.txt", []),
        ("-e .", []),
        ("--extra-index-url https://example.org -r base.txt", []),
    ],
)
def test_what_a_line_includes(line: str, expected: list[str]) -> None:
    assert includes({"requirements.txt": line, "base.txt": "", "with blank.txt": "", "sub/x": ""}) == expected


def test_includes_are_relative_to_their_file_and_may_go_in_circles() -> None:
    files = {
        "requirements.txt": "-r reqs/dev.txt\n-r requirements.txt\n",
        "reqs/dev.txt": "-r base.txt\n-c ../constraints.txt\n-r ../../outside.txt\n",
        "reqs/base.txt": "-r dev.txt\nnumpy\n",
        "constraints.txt": "numpy<3\n",
    }
    assert includes(files) == ["reqs/dev.txt", "reqs/base.txt", "constraints.txt"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dependencies: [python=3.11, {pip: [-r reqs/a.txt, numpy]}]", ["reqs/a.txt"]),
        ("dependencies: [{pip: -r reqs/a.txt}]", []),
        ("dependencies: 5", []),
        ("[", []),
        ("", []),
    ],
)
def test_an_environment_of_conda_passes_includes_to_pip(text: str, expected: list[str]) -> None:
    assert includes({"conda_env.yml": text, "reqs/a.txt": ""}, "conda_env.yml") == expected


def test_there_is_a_bound() -> None:
    files = {"requirements.txt": "\n".join(f"-r {n}.txt" for n in range(2000)), **{f"{n}.txt": "" for n in range(2000)}}
    with pytest.raises(InvalidInput, match="more than 1000 files"):
        includes(files)
    with pytest.raises(InvalidInput, match="more than 40 folders"):
        list(requirements.copies(f"{n}/a.txt" for n in range(41)))


def test_included_files_keep_their_places() -> None:
    build = Build(image="x", build_steps=["pip install -r requirements.txt"])
    text = render(build, {"requirements.txt", "base.txt"}, "", included=["reqs/b.txt", "base.txt", "reqs/a.txt"])
    expected = """WORKDIR /code

COPY build/requirements.txt /code
COPY build/base.txt /code
COPY build/reqs/a.txt build/reqs/b.txt /code/reqs/
RUN pip install -r requirements.txt
COPY build /code
"""
    assert text.endswith(expected)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("my reqs/a b.txt", 'COPY ["build/my reqs/a b.txt", "/code/my reqs/"]'),
        ("a[1]*.txt", 'COPY ["build/a[[]1][*].txt", "/code"]'),
        ("$x.txt", 'COPY ["build/\\\\$x.txt", "/code"]'),
        ("ü.txt", 'COPY ["build/\\u00fc.txt", "/code"]'),
    ],
)
def test_paths_of_any_spelling(path: str, line: str) -> None:
    assert list(requirements.copies([path])) == [line]


def test_files_without_includes_leave_the_dockerfile_as_documented() -> None:
    files = {"requirements.txt", "conda_env.yml", "setup.sh"}
    assert render(Build(image="x"), files, "", included=()) == render(Build(image="x"), files, "")
