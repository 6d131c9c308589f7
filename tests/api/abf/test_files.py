"""Files kept by their sha1, and what is published for package managers."""

from __future__ import annotations

import hashlib
import http.client
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest

from ..conftest import on_loopback
from .farm import NO_CREDENTIALS, Farm, Person

CONTENT = b"int main() {}\n" + bytes(range(256))
SHA1 = hashlib.sha1(CONTENT).hexdigest()
LINKS = re.compile('href="([^"]*)"')


def upload(person: Person, content: bytes = CONTENT, name: str = "evil-1.0.tar.gz") -> httpx2.Response:
    return person.post("upload", files={"file_store[file]": (name, content, "application/octet-stream")})


def test_a_file_comes_back_by_its_sha1(farm: Farm) -> None:
    answer = upload(farm.ivan)
    assert (answer.status_code, answer.json()) == (201, {"sha1_hash": SHA1})
    for person in (farm.ivan, farm.petr, farm.nobody):
        found = person.get(f"file_stores/{SHA1}")
        assert (found.status_code, found.content) == (200, CONTENT)
        assert "evil-1.0.tar.gz" in found.headers["content-disposition"]
        assert found.headers["content-length"] == str(len(CONTENT))


def test_who_has_a_file(farm: Farm) -> None:
    path = f"file_stores.json?hash={SHA1}"
    assert farm.ivan.get(path).json() == []
    upload(farm.ivan)
    user = {"id": farm.ivan.id, "uname": "ivan"}
    expected = [{"sha1_hash": SHA1, "file_name": "evil-1.0.tar.gz", "user": user}]
    assert farm.ivan.get(path).json() == farm.petr.get(path).json() == expected


@pytest.mark.parametrize("query", ["", "?hash=", "?hash=nosuch", "?hash=%00", f"?hash={'0' * 40}", "?hash=../../token"])
def test_files_that_nobody_has(query: str, shared: Farm) -> None:
    upload(shared.ivan)
    answer = shared.ivan.get(f"file_stores.json{query}")
    assert (answer.status_code, answer.json()) == (200, [])


def test_a_file_that_is_there_is_kept_once(farm: Farm) -> None:
    upload(farm.ivan)
    again = upload(farm.petr, name="other.tar.gz")
    assert (again.status_code, again.json()) == (201, {"sha1_hash": SHA1})
    assert len(farm.ivan.get(f"file_stores.json?hash={SHA1}").json()) == 1
    assert farm.nobody.get(f"file_stores/{SHA1}").content == CONTENT


def test_nobody_uploads(farm: Farm) -> None:
    answer = upload(farm.nobody)
    assert (answer.status_code, answer.json()) == (401, NO_CREDENTIALS)
    assert farm.nobody.get(f"file_stores/{SHA1}").status_code == 404


def test_an_empty_file_and_a_large_one(farm: Farm) -> None:
    for content in (b"", bytes(n * n % 251 for n in range(2**21))):
        digest = hashlib.sha1(content).hexdigest()
        assert upload(farm.ivan, content).json() == {"sha1_hash": digest}
        assert farm.nobody.get(f"file_stores/{digest}").content == content


@pytest.mark.parametrize("name", ["../../x.log", 'a"b.log', "a\r\nX-Evil: 1.log", "ü.log", "", "x" * 300])
def test_names_of_files_reach_nowhere(name: str, farm: Farm) -> None:
    answer = upload(farm.ivan, b"text", name)
    assert answer.status_code == (201 if name else 422)  # a part without a file name is no file
    found = farm.nobody.get(f"file_stores/{hashlib.sha1(b'text').hexdigest()}")
    assert found.status_code == (200 if name else 404)
    assert "x-evil" not in found.headers
    assert not list(farm.services.home.root.parent.rglob("x.log"))


def test_uploads_of_nothing(farm: Farm) -> None:
    for more in (
        {},
        {"json": {"file_store": {"file": "x"}}},
        {"files": {"file": ("x", b"text")}},
        {"data": {"file_store[file]": "text"}},
    ):
        assert farm.ivan.post("upload", **more).status_code == 422


# -- how a file is sent ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["build.log", "notes.txt"])
def test_a_log_is_read_in_the_browser(name: str, shared: Farm) -> None:
    """Also with a suffix behind the sha1, and what the client adds to it."""
    digest = upload(shared.ivan, b"hello\n", name).json()["sha1_hash"]
    for path in (digest, f"{digest}.log", f"{digest}.log?show=True"):
        found = shared.nobody.get(f"file_stores/{path}")
        assert (found.status_code, found.content) == (200, b"hello\n")
        assert found.headers["content-type"].startswith("text/plain")
        assert not found.headers.get("content-disposition", "").startswith("attachment")


@pytest.mark.parametrize("name", ["x.html", "x.svg", "x.js", "x.xhtml"])
def test_a_page_is_not_shown_as_one(name: str, shared: Farm) -> None:
    """Anybody with an account could put a script on this site."""
    digest = upload(shared.ivan, b"<script>alert(1)</script>", name).json()["sha1_hash"]
    for path in (digest, f"{digest}.log"):
        found = shared.nobody.get(f"file_stores/{path}")
        assert found.headers["content-type"].partition(";")[0] in ("application/octet-stream", "text/plain")
        assert found.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["0" * 40, "nosuch", "0" * 39, "..%2f..%2ftoken", "%00", SHA1.upper() + "x"])
def test_files_that_are_not_there(path: str, shared: Farm) -> None:
    upload(shared.ivan)
    for person in (shared.nobody, shared.root):
        assert person.get(f"file_stores/{path}").status_code == 404
        assert person.get(f"file_stores/{path}.log").status_code == 404


# -- downloads ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(shared: Farm) -> Iterator[str]:
    """The shared farm on a real socket."""
    with on_loopback(shared.services) as url:
        yield url


def download(person: Person, path: str) -> httpx2.Response:
    return person.http.request("GET", f"/downloads/{path}", headers=person.headers)


def publish(farm: Farm, path: str, content: bytes = b"package") -> None:
    file = farm.services.home.root / "downloads" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def test_a_package_of_an_open_platform_is_everybodys(farm: Farm) -> None:
    path = f"rosa2012/repository/{farm.ids.arch_name}/main/release/evil_1.0_all.deb"
    publish(farm, path)
    for person in (farm.nobody, farm.petr):
        found = download(person, path)
        assert (found.status_code, found.content) == (200, b"package")


def test_a_part_of_a_package(farm: Farm) -> None:
    """Package managers go on where they stopped."""
    path = f"rosa2012/repository/{farm.ids.arch_name}/main/release/evil_1.0_all.deb"
    publish(farm, path)
    found = farm.nobody.http.request("GET", f"/downloads/{path}", headers={"Range": "bytes=4-"})
    assert (found.status_code, found.content) == (206, b"age")
    assert found.headers["content-range"] == "bytes 4-6/7"


def test_what_lies_on_the_shelves_is_listed(farm: Farm) -> None:
    """For people: package managers have their own files. Nothing of what is hidden, and names are no markup."""
    for name in ("evil_1.0_all.deb", "<b>.deb"):
        publish(farm, f"rosa2012/repository/{farm.ids.arch_name}/main/release/{name}")
    publish(farm, "rosa_lts/repository/x.deb")
    farm.root.changed("PUT", f"platforms/{farm.ids.lts_platform}.json", {"platform": {"visibility": "hidden"}})
    top = download(farm.nobody, "")
    assert (top.status_code, LINKS.findall(top.text)) == (200, ["rosa2012/"])
    folder = download(farm.nobody, f"rosa2012/repository/{farm.ids.arch_name}/main/release/")
    assert "evil_1.0_all.deb" in folder.text
    assert "<b>" not in folder.text


def test_the_top_is_there_with_its_slash_and_without(farm: Farm) -> None:
    publish(farm, "rosa2012/repository/x.deb")
    publish(farm, "nobody_knows/x.deb")  # a folder that is no platform's
    for person in (farm.nobody, farm.petr):
        short = person.http.get("/downloads", headers=person.headers, follow_redirects=False)
        assert (short.status_code, short.headers["location"]) == (301, "/downloads/")
        found = person.http.get("/downloads", headers=person.headers, follow_redirects=True)
        assert (found.status_code, LINKS.findall(found.text)) == (200, ["rosa2012/"])


def test_a_hidden_platform_needs_credentials(farm: Farm) -> None:
    path = f"rosa_lts/repository/{farm.ids.arch_name}/main/release/evil_1.0_all.deb"
    publish(farm, path)
    number = farm.ids.lts_platform
    farm.root.changed("PUT", f"platforms/{number}.json", {"platform": {"visibility": "hidden"}})
    nobody = download(farm.nobody, path)
    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"].startswith("Basic")
    assert download(farm.petr, path).status_code in (403, 404)
    for person in (farm.olga, farm.root):
        assert download(person, path).content == b"package"


@pytest.mark.parametrize(
    "path",
    [
        "nosuch",
        "nosuch/repository/x86_64/main/release/x.deb",
        "rosa2012",
        "rosa2012/",
        "rosa2012/repository/x86_64/main/release/nosuch.deb",
        "rosa2012/container/1/x86_64/main/release/x.deb",
        "rosa2012/repository/%00",
        "rosa2012/" + "x" * 300,
        "rosa2012/" + "x/" * 5000,
        "x/" * 5000,
        "%ff",
    ],
    ids=lambda path: path[:30],
)
def test_downloads_that_are_not_there(path: str, shared: Farm) -> None:
    assert download(shared.nobody, path).status_code == 404


def test_before_anything_was_published_there_is_nothing(farm: Farm) -> None:
    found = farm.nobody.http.get("/downloads", follow_redirects=True)
    assert (found.status_code, LINKS.findall(found.text)) == (200, [])


@pytest.mark.parametrize(
    "path",
    [
        "../token",
        "../../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "rosa2012/../../secret",
        "rosa2012/..%2f..%2fsecret",
        "rosa2012/%2e%2e/%2e%2e/secret",
        "rosa2012/....//....//secret",
        "rosa2012/..\\..\\secret",
        "rosa2012//etc/passwd",
        "%2fetc%2fpasswd",
        "rosa2012/%2fetc%2fpasswd",
        "../polylocal.db",
    ],
)
def test_paths_that_reach_out(path: str, shared: Farm, address: str) -> None:
    """As they are, on a socket: a client's library would tidy them up."""
    home = shared.services.home.root
    for folder in (home, home.parent):
        (folder / "secret").write_text("root:x:0:0")
    publish(shared, "rosa2012/repository/file")
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.request("GET", f"/downloads/{path}")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert b"root:x" not in body
    assert b"SQLite" not in body
    assert answer.status == 404
