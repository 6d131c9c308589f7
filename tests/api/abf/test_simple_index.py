"""The index of Python packages over HTTP: content negotiation, pip and uv."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packages_support import make_zip, metadata, wheel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from polylocal.api.abf import simple_index
from polylocal.api.abf.simple_index import HTML, V1_HTML, V1_JSON
from polylocal.packages import distributions
from polylocal.packages.facts import Facts, IndexedFile, digests

from ..conftest import on_loopback
from .farm import Farm

ROOT = Path(__file__).parents[3]
RELEASE = "rosa2012/repository/python/main/release"
PIP = f"{V1_JSON}, {V1_HTML}; q=0.1, text/html; q=0.01"
CHARSET = "text/html; charset=utf-8"


def put_up(farm: Farm, files: Mapping[str, bytes], yanked: Mapping[str, str] | None = None) -> None:
    """Create a repository with these files, as a publication does."""
    release = farm.context.home.downloads / RELEASE
    shutil.rmtree(release, ignore_errors=True)
    listed = []
    for name, content in files.items():
        first = release / name
        first.parent.mkdir(parents=True, exist_ok=True)
        first.write_bytes(content)
        facts = Facts(**digests(first), size=len(content), about=distributions.index_texts(first, name))
        second = release / "pool" / facts.sha1 / name
        second.parent.mkdir(parents=True)
        os.link(first, second)
        listed.append(IndexedFile(name, f"pool/{facts.sha1}/{name}", facts, (yanked or {}).get(name)))
    for path, content in distributions.index(listed).items():
        (release / path).parent.mkdir(parents=True, exist_ok=True)
        (release / path).write_bytes(content)


@pytest.fixture
def ask(farm: Farm) -> Callable[..., httpx2.Response]:
    """ask(path, accept…): requests a path below the index."""
    put_up(farm, {"hello-1.0-py3-none-any.whl": wheel("hello", "1.0")})

    def asked(path: str = "", *accept: str, **headers: str) -> httpx2.Response:
        sent = [*(("Accept", value) for value in accept or ("",)), *headers.items()]
        return farm.nobody.http.get(f"/downloads/{RELEASE}/simple/{path}", headers=sent, follow_redirects=False)

    return asked


# -- content negotiation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], HTML),
        ([""], HTML),
        (["*/*"], HTML),
        (["text/*"], HTML),
        (["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"], HTML),
        ([PIP], V1_JSON),
        ([f"{V1_JSON}, {V1_HTML};q=0.2, text/html;q=0.01"], V1_JSON),
        ([V1_JSON], V1_JSON),
        ([V1_JSON.upper()], V1_JSON),
        ([f"{V1_JSON};charset=utf-8"], V1_JSON),
        (["application/*"], V1_JSON),
        ([V1_HTML], V1_HTML),
        (["application/vnd.pypi.simple.latest+json"], V1_JSON),
        (["application/vnd.pypi.simple.latest+html"], V1_HTML),
        (["application/vnd.pypi.simple.v2+json, application/vnd.pypi.simple.v1+json;q=0.1"], V1_JSON),
        (["*/*;q=0.5, text/html;q=0.1, application/vnd.pypi.simple.v1+html;q=0.4"], V1_JSON),
        (["*/*, text/html;q=0, application/vnd.pypi.simple.v1+json;q=0"], V1_HTML),
        (["text/html;q=0.4", f"{V1_JSON};q=0.6"], V1_JSON),
        ([f"text/html ; q = 0.4 ,, {V1_JSON} ;Q=0.3"], HTML),
        ([f"{V1_JSON};q=many, text/html;q=0.1"], HTML),
    ],
)
def test_the_clients_preferred_format(accept: list[str], expected: str) -> None:
    assert simple_index.content_type(accept, None) == expected


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/vnd.pypi.simple.v2+json",
        "image/*",
        "*/*;q=0",
        f"{V1_JSON};q=0",
        f"{V1_JSON};q=nan",
        f"{V1_JSON};q=2",
        "no type",
    ],
)
def test_a_client_that_takes_none_of_them(accept: str, ask: Callable[..., httpx2.Response]) -> None:
    for path in ("", "hello/"):
        found = ask(path, accept)
        assert found.status_code == 406
        assert found.headers["vary"] == "Accept"
        assert V1_JSON in found.json()["message"]


@given(accepted=st.lists(st.text(alphabet="atexhml/*;q=., 019json+vdpyi\x00é", max_size=40), max_size=3))
def test_any_header_gets_a_form_or_is_refused(accepted: list[str]) -> None:
    try:
        found = simple_index.content_type(accepted, None)
    except HTTPException as error:
        found = str(error.status_code)
    assert found in {*simple_index.FILES, "406"}


@pytest.mark.parametrize("path", ["", "hello/"])
def test_each_form_has_its_type_and_its_tag(path: str, ask: Callable[..., httpx2.Response]) -> None:
    found = {media: ask(path, media) for media in (HTML, V1_HTML, V1_JSON)}
    assert {media: answer.headers["content-type"] for media, answer in found.items()} == {
        HTML: CHARSET,
        V1_HTML: V1_HTML,
        V1_JSON: V1_JSON,
    }
    assert {answer.headers["vary"] for answer in found.values()} == {"Accept"}
    assert found[HTML].content == found[V1_HTML].content
    assert found[HTML].text.startswith("<!DOCTYPE html>")
    assert found[V1_JSON].json()["meta"] == {"api-version": "1.1"}
    tags = {media: answer.headers["etag"] for media, answer in found.items()}
    assert len(set(tags.values())) == 3
    for media, tag in tags.items():
        same = ask(path, media, **{"If-None-Match": tag})
        assert (same.status_code, same.content) == (304, b"")
        assert (same.headers["vary"], same.headers["etag"]) == ("Accept", tag)
        others = ", ".join(other for other in tags.values() if other != tag)
        assert ask(path, media, **{"If-None-Match": others}).status_code == 200
        part = ask(path, media, **{"Range": "bytes=0-3", "If-Range": tag})
        assert (part.status_code, len(part.content), part.headers["content-type"]) == (
            206,
            4,
            found[media].headers["content-type"],
        )


def test_pages_without_a_slash_are_redirected(ask: Callable[..., httpx2.Response]) -> None:
    found = ask("hello", V1_JSON)
    assert (found.status_code, found.headers["location"]) == (301, f"/downloads/{RELEASE}/simple/hello/")


@pytest.mark.parametrize(
    ("asked", "status", "media"),
    [
        (V1_JSON, 200, V1_JSON),
        (V1_HTML, 200, V1_HTML),
        ("application/vnd.pypi.simple.latest+json", 200, V1_JSON),
        ("text/html", 200, CHARSET),
        ("json", 406, "application/json; charset=utf-8"),
        ("", 200, V1_HTML),
    ],
)
def test_a_form_that_the_address_names(
    asked: str, status: int, media: str, ask: Callable[..., httpx2.Response]
) -> None:
    found = ask(f"hello/?format={asked.replace('+', '%2B')}", V1_HTML)
    assert (found.status_code, found.headers["content-type"]) == (status, media)


def test_other_folders_are_not_negotiated(farm: Farm, ask: Callable[..., httpx2.Response]) -> None:
    listed = farm.nobody.http.get(f"/downloads/{RELEASE}/", headers={"Accept": "image/png"})
    assert (listed.status_code, listed.headers.get("vary")) == (200, None)
    assert "hello-1.0-py3-none-any.whl" in listed.text


def test_metadata_is_no_page(farm: Farm, ask: Callable[..., httpx2.Response]) -> None:
    url = ask("hello/", V1_JSON).json()["files"][0]["url"]
    found = farm.nobody.http.get(f"/downloads/{RELEASE}/simple/hello/{url}.metadata")
    assert (found.status_code, found.headers["content-type"]) == (200, "application/octet-stream")
    assert found.content == metadata(Metadata_Version="2.1", Name="hello", Version="1.0")


# -- real clients ----------------------------------------------------------------------------------------------------


@dataclass
class Served:
    url: str
    asked: list[str] = field(default_factory=list)  # paths below the repository, in the order of the requests

    def seen(self) -> list[str]:
        found, self.asked[:] = list(self.asked), []
        return found


@pytest.fixture
def served(farm: Farm) -> Iterator[Served]:
    """The farm on a real socket, with a list of the requests."""
    asked: list[str] = []

    def noting(app: ASGIApp) -> ASGIApp:
        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                asked.append(scope["path"].removeprefix(f"/downloads/{RELEASE}/"))
            await app(scope, receive, send)

        return noted

    with on_loopback(farm.context, noting) as url:
        yield Served(f"{url}/downloads/{RELEASE}/simple/", asked)


def real_wheel(name: str, version: str, **fields: str) -> bytes:
    """An installable distribution with a module that contains its version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n".encode(),
        f"{info}/METADATA": metadata(Metadata_Version="2.1", Name=name, Version=version, **fields),
        f"{info}/WHEEL": metadata(Wheel_Version="1.0", Generator="test", Root_Is_Purelib="true", Tag="py3-none-any"),
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    return make_zip({**files, f"{info}/RECORD": record.encode()})


@pytest.fixture(scope="session")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """The pip that comes with Python, in a separate environment."""
    folder = tmp_path_factory.mktemp("pip")
    venv.create(folder, with_pip=True, symlinks=True)
    return [str(folder / "bin" / "python"), "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-cache-dir"]


def uv() -> Sequence[str]:
    own = ROOT / ".venv-tools/bin/uv"  # installed by scripts/setup
    found = str(own) if own.exists() else shutil.which("uv")
    if found is None:
        pytest.skip("uv is not on this machine")
    return [found, "pip", "--no-cache", "--no-config"]


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    env["NO_PROXY"] = "127.0.0.1"
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=100)


Install = Callable[..., dict[str, str]]


@pytest.fixture
def reads_metadata(request: pytest.FixtureRequest, pip: Sequence[str]) -> bool:
    """Whether the installer of this test reads the metadata files of an index. Debian 12's pip is older than 23.2."""
    version = run([*pip, "--version"]).stdout.split()[1]
    return "uv" in request.node.name or tuple(map(int, version.split(".")[:2])) >= (23, 2)


@pytest.fixture(params=["pip", "uv"])
def install(request: pytest.FixtureRequest, tmp_path: Path, served: Served) -> Install:
    """install(requirements…) → the installed modules: name → version."""
    tool = request.getfixturevalue("pip") if request.param == "pip" else uv()

    def installed(*requirements: str) -> dict[str, str]:
        target = tmp_path / f"target{len(list(tmp_path.iterdir()))}"
        more = [] if request.param == "pip" else ["--python", sys.executable]
        done = run([*tool, "install", *more, "--index-url", served.url, "--target", str(target), *requirements])
        assert done.returncode == 0, done.stdout + done.stderr
        return {path.stem: path.read_text().split("'")[1] for path in target.glob("*.py")}

    return installed


def test_a_dependency_is_found_by_metadata_alone(
    farm: Farm, served: Served, install: Install, reads_metadata: bool
) -> None:
    """For rejected versions, uv and pip 23.2 or newer download the metadata only."""
    files = {
        "app-1.0-py3-none-any.whl": real_wheel("app", "1.0", Requires_Dist="lib <2"),
        "lib-1.5-py3-none-any.whl": real_wheel("lib", "1.5", Requires_Python=">=3.8"),
        "lib-2.0-py3-none-any.whl": real_wheel("lib", "2.0"),
    }
    put_up(farm, files)
    assert install("app") == {"app": "1.0", "lib": "1.5"}
    seen = served.seen()
    named = {path.rpartition("/")[2] for path in seen if path.startswith("pool/")}
    assert named == {f"{name}{end}" for name in list(files)[:2] for end in ("", ".metadata")[: 1 + reads_metadata]}
    for name in list(files)[:2] if reads_metadata else ():
        order = [path.rpartition("/")[2] for path in seen]
        assert order.index(f"{name}.metadata") < order.index(name)


def test_a_yanked_version_is_passed_over_unless_it_is_asked_for(farm: Farm, install: Install) -> None:
    files = {f"lib-{version}-py3-none-any.whl": real_wheel("lib", version) for version in ("1.0", "2.0")}
    put_up(farm, files, {"lib-2.0-py3-none-any.whl": "loses data"})
    assert install("lib") == {"lib": "1.0"}
    assert install("lib==2.0") == {"lib": "2.0"}


def test_pip_prints_the_reason_of_a_yank(farm: Farm, served: Served, pip: Sequence[str], tmp_path: Path) -> None:
    name = "lib-2.0-py3-none-any.whl"
    put_up(farm, {name: real_wheel("lib", "2.0")}, {name: "loses data"})
    done = run([*pip, "download", "--index-url", served.url, "--dest", str(tmp_path), "lib==2.0"])
    assert done.returncode == 0, done.stderr
    assert "Reason for being yanked: loses data" in done.stdout + done.stderr


def test_a_version_for_another_python_is_passed_over(farm: Farm, install: Install) -> None:
    files = {
        "lib-1.0-py3-none-any.whl": real_wheel("lib", "1.0", Requires_Python=">=3.8"),
        "lib-2.0-py3-none-any.whl": real_wheel("lib", "2.0", Requires_Python=">=99"),
    }
    put_up(farm, files)
    assert install("lib") == {"lib": "1.0"}


def test_the_folder_itself_is_an_index(farm: Farm, install: Install, served: Served) -> None:
    """Builds without a network read the index from index.html. The page shows the yanked versions."""
    files = {
        "app-1.0-py3-none-any.whl": real_wheel("app", "1.0", Requires_Dist="lib"),
        "lib-1.0-py3-none-any.whl": real_wheel("lib", "1.0"),
        "lib-2.0-py3-none-any.whl": real_wheel("lib", "2.0"),
    }
    put_up(farm, files, {"lib-2.0-py3-none-any.whl": ""})
    served.url = (farm.context.home.downloads / RELEASE / "simple").as_uri()
    assert install("app") == {"app": "1.0", "lib": "1.0"}
    assert served.seen() == []
