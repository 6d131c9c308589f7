"""Files by their sha1, and the published files for package managers."""

from __future__ import annotations

import hashlib
import http.client
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from packages_support import deb
from pysequoia import Cert, Sig, verify
from rpms_support import rpm

from polylocal.packages.repositories import FolderContent, write
from polylocal.packages.signing import Key

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


def test_searching_files_by_hash(farm: Farm) -> None:
    path = f"file_stores.json?hash={SHA1}"
    assert farm.ivan.get(path).json() == []
    upload(farm.ivan)
    user = {"id": farm.ivan.id, "uname": "ivan"}
    expected = [{"sha1_hash": SHA1, "file_name": "evil-1.0.tar.gz", "user": user}]
    assert farm.ivan.get(path).json() == farm.petr.get(path).json() == expected


@pytest.mark.parametrize("query", ["", "?hash=", "?hash=nosuch", "?hash=%00", f"?hash={'0' * 40}", "?hash=../../token"])
def test_searching_unknown_files(query: str, shared: Farm) -> None:
    upload(shared.ivan)
    answer = shared.ivan.get(f"file_stores.json{query}")
    assert (answer.status_code, answer.json()) == (200, [])


def test_a_file_that_is_there_is_kept_once(farm: Farm) -> None:
    upload(farm.ivan)
    again = upload(farm.petr, name="other.tar.gz")
    assert (again.status_code, again.json()) == (201, {"sha1_hash": SHA1})
    assert len(farm.ivan.get(f"file_stores.json?hash={SHA1}").json()) == 1
    assert farm.nobody.get(f"file_stores/{SHA1}").content == CONTENT


def test_uploads_need_a_user(farm: Farm) -> None:
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
    assert answer.status_code == (201 if name else 422)  # a part without a file name is not a file
    found = farm.nobody.get(f"file_stores/{hashlib.sha1(b'text').hexdigest()}")
    assert found.status_code == (200 if name else 404)
    assert "x-evil" not in found.headers
    assert not list(farm.context.home.root.parent.rglob("x.log"))


def test_uploads_of_nothing(farm: Farm) -> None:
    for more in (
        {},
        {"json": {"file_store": {"file": "x"}}},
        {"files": {"file": ("x", b"text")}},
        {"data": {"file_store[file]": "text"}},
    ):
        assert farm.ivan.post("upload", **more).status_code == 422


# -- responses with a file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["build.log", "notes.txt"])
def test_a_log_is_read_in_the_browser(name: str, shared: Farm) -> None:
    """Clients may add a suffix to the sha1, and a query."""
    digest = upload(shared.ivan, b"hello\n", name).json()["sha1_hash"]
    for path in (digest, f"{digest}.log", f"{digest}.log?show=True"):
        found = shared.nobody.get(f"file_stores/{path}")
        assert (found.status_code, found.content) == (200, b"hello\n")
        assert found.headers["content-type"].startswith("text/plain")
        assert not found.headers.get("content-disposition", "").startswith("attachment")


@pytest.mark.parametrize("name", ["x.html", "x.svg", "x.js", "x.xhtml"])
def test_an_html_file_is_not_shown_as_a_page(name: str, shared: Farm) -> None:
    """Otherwise every user could put a script on this site."""
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
    """The URL of the shared farm on a real socket."""
    with on_loopback(shared.context) as url:
        yield url


def download(person: Person, path: str) -> httpx2.Response:
    return person.http.request("GET", f"/downloads/{path}", headers=person.headers)


def publish(farm: Farm, path: str, content: bytes = b"package") -> None:
    file = farm.context.home.root / "downloads" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def test_a_package_of_an_open_platform_is_everybodys(farm: Farm) -> None:
    path = f"rosa2012/repository/{farm.ids.arch_name}/main/release/evil_1.0_all.deb"
    publish(farm, path)
    for person in (farm.nobody, farm.petr):
        found = download(person, path)
        assert (found.status_code, found.content) == (200, b"package")


def test_a_part_of_a_package(farm: Farm) -> None:
    """Package managers resume interrupted downloads."""
    path = f"rosa2012/repository/{farm.ids.arch_name}/main/release/evil_1.0_all.deb"
    publish(farm, path)
    found = farm.nobody.http.request("GET", f"/downloads/{path}", headers={"Range": "bytes=4-"})
    assert (found.status_code, found.content) == (206, b"age")
    assert found.headers["content-range"] == "bytes 4-6/7"


@pytest.mark.parametrize(
    ("asked", "content", "shown"),
    [
        ("bytes=0-0", b"p", "0-0"),
        ("bytes=2-3", b"ck", "2-3"),
        ("bytes=6-", b"e", "6-6"),
        ("bytes=5-99", b"ge", "5-6"),
        ("bytes=-2", b"ge", "5-6"),
        ("bytes=-99", b"package", "0-6"),
        ("Bytes=0-1", b"pa", "0-1"),
    ],
)
def test_one_range(asked: str, content: bytes, shown: str, shared: Farm) -> None:
    publish(shared, "rosa_lts/repository/ranges")
    found = shared.nobody.http.get("/downloads/rosa_lts/repository/ranges", headers={"Range": asked})
    assert (found.status_code, found.content) == (206, content)
    assert found.headers["content-range"] == f"bytes {shown}/7"
    assert found.headers["content-length"] == str(len(content))


@pytest.mark.parametrize(
    "asked",
    ["", "bytes", "bytes=", "bytes=-", "bytes=3-2", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes=0-" + "9" * 99],
)
def test_requests_without_a_single_range_get_the_whole_file(asked: str, shared: Farm) -> None:
    publish(shared, "rosa_lts/repository/ranges")
    found = shared.nobody.http.get("/downloads/rosa_lts/repository/ranges", headers={"Range": asked})
    assert (found.status_code, found.content) == (200, b"package")


@pytest.mark.parametrize("asked", ["bytes=7-", "bytes=7-9", "bytes=-0", "bytes=999999999999999999-"])
def test_ranges_behind_the_end(asked: str, shared: Farm) -> None:
    publish(shared, "rosa_lts/repository/ranges")
    found = shared.nobody.http.get("/downloads/rosa_lts/repository/ranges", headers={"Range": asked})
    assert (found.status_code, found.content) == (416, b"")
    assert found.headers["content-range"] == "bytes */7"


def test_a_range_of_what_the_client_has_a_part_of(farm: Farm) -> None:
    path = "rosa2012/repository/ranges"
    publish(farm, path)
    tag = download(farm.nobody, path).headers["etag"]
    for only_if, status in ((tag, 206), (f"W/{tag}", 200), ('"other"', 200), ("Sun, 06 Nov 1994 08:49:37 GMT", 200)):
        headers = {"Range": "bytes=4-", "If-Range": only_if}
        assert farm.nobody.http.get(f"/downloads/{path}", headers=headers).status_code == status


def test_the_head_of_a_file(shared: Farm, address: str) -> None:
    publish(shared, "rosa_lts/repository/head")
    for path in ("downloads/rosa_lts/repository/head", f"api/v1/file_stores/{upload(shared.ivan).json()['sha1_hash']}"):
        whole, head = httpx2.get(f"{address}/{path}"), httpx2.head(f"{address}/{path}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
        assert head.headers["etag"] == whole.headers["etag"]


# -- readers during publications ------------------------------------------------------------------------------------


def shelve(farm: Farm, number: int) -> str:
    """Publish a file with the number of the publication, longer each time. Returns the path of its folder."""
    below = "rosa2012/repository/turning/main/release"
    source = farm.context.home.root / f"note-{number}"
    source.write_text(f"{number}\n" * (number + 1))
    write([FolderContent(farm.context.home.downloads / below, {"note.txt": source}, "pypi")])
    return below


@contextmanager
def publishing(farm: Farm, count: int) -> Iterator[threading.Event]:
    """Publish repeatedly on another thread. Sets the event at the end."""
    over = threading.Event()

    def work() -> None:
        try:
            for number in range(1, count + 1):
                shelve(farm, number)
        finally:
            over.set()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield over
        done.result()


def test_every_publication_has_another_tag(farm: Farm) -> None:
    """Even if there are several within one second, and the size is the same."""
    below = "rosa2012/repository/x"
    tags = []
    for letter in "abc":
        source = farm.context.home.root / letter
        source.write_text(letter)
        write([FolderContent(farm.context.home.downloads / below, {"x": source}, "pypi")])
        path = f"{below}/simple/index.html"
        found = farm.nobody.http.get(f"/downloads/{path}", headers={"If-None-Match": tags[-1] if tags else '"none"'})
        assert found.status_code == 200
        tags.append(found.headers["etag"])
        same = farm.nobody.http.get(f"/downloads/{path}", headers={"If-None-Match": tags[-1]})
        assert (same.status_code, same.content) == (304, b"")
    assert len(set(tags)) == 3


def test_no_answer_depends_on_whole_seconds(farm: Farm) -> None:
    """apt sends the time of its copy, but one second may contain several publications."""
    path = f"{shelve(farm, 1)}/note.txt"
    found = download(farm.nobody, path)
    assert "last-modified" not in found.headers
    later = {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}
    assert farm.nobody.http.get(f"/downloads/{path}", headers=later).status_code == 200


def test_a_reader_never_gets_a_torn_file(farm: Farm) -> None:
    below = shelve(farm, 0)
    newest = 0
    with on_loopback(farm.context) as url, httpx2.Client(base_url=url) as reader, publishing(farm, 300) as over:
        while not over.is_set():
            found = reader.get(f"/downloads/{below}/note.txt")
            assert found.status_code == 200
            number = int(found.text.partition("\n")[0])
            assert found.text == f"{number}\n" * (number + 1)
            assert number >= newest
            newest = number


@pytest.mark.parametrize("path", ["", "simple/"])
def test_a_reader_never_gets_a_part_of_a_list(path: str, farm: Farm) -> None:
    below = shelve(farm, 0)
    expected = download(farm.nobody, f"{below}/{path}").text
    assert expected
    with publishing(farm, 300) as over:
        while not over.is_set():
            found = download(farm.nobody, f"{below}/{path}")
            assert (found.status_code, found.text) == (200, expected)


def test_a_file_that_an_earlier_index_names_is_served_after_a_publication(farm: Farm) -> None:
    """A publication after a client's download of an index keeps the files of that index."""
    below = "rosa2012/repository/x86_64/main/release"
    contents = [deb("a", f"1.{number}") for number in range(4)]
    seen = []
    for number, content in enumerate(contents):
        source = farm.context.home.root / f"deb-{number}"
        source.write_bytes(content)
        write([FolderContent(farm.context.home.downloads / below, {"a.deb": source}, "deb")])
        [named] = re.findall(r"^Filename: \./(.*)$", download(farm.nobody, f"{below}/./Packages").text, re.M)
        release = download(farm.nobody, f"{below}/Release").text
        hashes = re.findall(r"^ ([0-9a-f]{64}) ", release, re.M)
        seen.append((named, content, [f"by-hash/SHA256/{digest}" for digest in hashes]))
    for named, content, hashes in seen:
        assert download(farm.nobody, f"{below}/{named}").content == content
        for path in hashes:
            found = download(farm.nobody, f"{below}/{path}")
            assert found.status_code == 200
            assert hashlib.sha256(found.content).hexdigest() == path.rpartition("/")[2]
    assert download(farm.nobody, f"{below}/a.deb").content == contents[-1]
    for missing in (f"pool/{'0' * 40}/a.deb", "by-hash/SHA256/0", f"{seen[0][0]}/x", "simple/a/index.html"):
        assert download(farm.nobody, f"{below}/{missing}").status_code == 404
    assert ".left" not in download(farm.nobody, f"{below.rpartition('/')[0]}/").text


@pytest.mark.parametrize("below", ["n" * 250, "a.deb", "a.deb/x", "x/pool/y", "pool/pool/pool"])
@pytest.mark.parametrize(
    "path", ["pool/0/x.deb", "by-hash/SHA256/0", "repodata/0-primary.xml.gz", "repodata/repomd.xml.asc"]
)
def test_paths_of_leftovers_that_no_folder_has(farm: Farm, below: str, path: str) -> None:
    """The name may be too long for a folder, or be the name of a file."""
    publish(farm, "rosa2012/repository/x86_64/left/release/a.deb", b"x")
    for top in ("rosa2012", "rosa2012/repository/x86_64/left/release"):
        assert download(farm.nobody, f"{top}/{below}/{path}").status_code == 404


def test_a_client_gets_the_signature_of_the_metadata_that_it_has_read(farm: Farm) -> None:
    """dnf requests one after the other, so a publication may happen in between."""
    below = "rosa2012/repository/x86_64/main/release"
    key = Key.generate("rosa2012", "deb")
    read, early = [], None
    for number in range(3):
        source = farm.context.home.root / f"rpm-{number}"
        source.write_bytes(rpm("tool", f"1.{number}"))
        write([FolderContent(farm.context.home.downloads / below, {f"tool-{number}.rpm": source}, "dnf", key=key)])
        if read:
            signature = download(farm.nobody, f"{below}/repodata/repomd.xml.asc")
            assert is_signed(read[-1], signature.content, key)
            assert early is None or signature.content != early
            early = signature.content
        read.append(download(farm.nobody, f"{below}/repodata/repomd.xml").content)
    assert len(set(read)) == 3
    last = (farm.context.home.downloads / below / "repodata" / "repomd.xml.asc").read_bytes()
    assert download(farm.nobody, f"{below}/repodata/repomd.xml.asc").content == last


def test_a_client_without_metadata_gets_the_current_signature(farm: Farm) -> None:
    below = "rosa2012/repository/x86_64/main/release"
    key = Key.generate("rosa2012", "deb")
    write([FolderContent(farm.context.home.downloads / below, {}, "dnf", key=key)])
    signature = download(farm.nobody, f"{below}/repodata/repomd.xml.asc").content
    assert is_signed((farm.context.home.downloads / below / "repodata" / "repomd.xml").read_bytes(), signature, key)
    assert download(farm.nobody, f"{below.replace('main', 'other')}/repodata/repomd.xml.asc").status_code == 404


def is_signed(content: bytes, signature: bytes, key: Key) -> bool:
    """Raises the library's error if the signature is wrong."""
    certificate = Cert.from_bytes(key.public.encode())
    found = verify(content, store=lambda names: [certificate], signature=Sig.from_bytes(signature))
    return len(found.valid_sigs) == 1


def test_a_file_is_read_to_its_end_after_it_was_removed(farm: Farm) -> None:
    path = "rosa2012/repository/large"
    content = bytes(range(256)) * 40_000  # more than the buffers of sockets
    publish(farm, path, content)
    with on_loopback(farm.context) as url, httpx2.stream("GET", f"{url}/downloads/{path}") as found:
        pieces = found.iter_raw(1000)
        first = next(pieces)
        Path(farm.context.home.downloads, path).unlink()
        assert first + b"".join(pieces) == content


def test_published_folders_are_listed(farm: Farm) -> None:
    """The page is for people, since package managers use indexes. It omits hidden files and escapes names."""
    for name in ("evil_1.0_all.deb", "<b>.deb"):
        publish(farm, f"rosa2012/repository/{farm.ids.arch_name}/main/release/{name}")
    publish(farm, "rosa_lts/repository/x.deb")
    farm.root.change("PUT", f"platforms/{farm.ids.lts_platform}.json", {"platform": {"visibility": "hidden"}})
    top = download(farm.nobody, "")
    assert (top.status_code, LINKS.findall(top.text)) == (200, ["rosa2012/"])
    folder = download(farm.nobody, f"rosa2012/repository/{farm.ids.arch_name}/main/release/")
    assert "evil_1.0_all.deb" in folder.text
    assert "<b>" not in folder.text


def test_the_top_is_there_with_its_slash_and_without(farm: Farm) -> None:
    publish(farm, "rosa2012/repository/x.deb")
    publish(farm, "nobody_knows/x.deb")  # a folder that belongs to no platform
    for person in (farm.nobody, farm.petr):
        short = person.http.get("/downloads", headers=person.headers, follow_redirects=False)
        assert (short.status_code, short.headers["location"]) == (301, "/downloads/")
        found = person.http.get("/downloads", headers=person.headers, follow_redirects=True)
        assert (found.status_code, LINKS.findall(found.text)) == (200, ["rosa2012/"])


def test_a_hidden_platform_needs_credentials(farm: Farm) -> None:
    path = f"rosa_lts/repository/{farm.ids.arch_name}/main/release/evil_1.0_all.deb"
    publish(farm, path)
    number = farm.ids.lts_platform
    farm.root.change("PUT", f"platforms/{number}.json", {"platform": {"visibility": "hidden"}})
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
def test_paths_that_lead_outside(path: str, shared: Farm, address: str) -> None:
    """Sent unchanged on a socket, since a client library would normalise them."""
    home = shared.context.home.root
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
