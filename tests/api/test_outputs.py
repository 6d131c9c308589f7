"""Outputs: one archive, a tree, single files, and no path outside the folder."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import time
from contextlib import chdir
from pathlib import Path

import pytest

from polylocal.api import outputs
from polylocal.api.api_context import ApiContext
from polylocal.store.rows import Run

from .conftest import Caller, P, names_in, write

OUTPUTS = f"{P}/jobs/1/outputs"
SECRET = "not for you"


@pytest.fixture
def folder(a_job: Run, context: ApiContext, tmp_path: Path) -> Path:
    """Outputs with a file, a subfolder, and links that lead outside."""
    found = context.outputs_path(a_job)
    assert found
    write(found / "model.txt", "weights")
    write(found / "logs" / "a" / "events.bin", b"\0\1\2")
    write(tmp_path / "secret.txt", SECRET)
    write(tmp_path / "secrets" / "key", SECRET)
    (found / "out").symlink_to(tmp_path / "secret.txt")
    (found / "outdir").symlink_to(tmp_path / "secrets")
    (found / "relative").symlink_to("../" * 12 + "etc/passwd")
    (found / "inside").symlink_to("model.txt")
    (found / "gone").symlink_to("nosuch")
    return found


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("path", [OUTPUTS, f"{OUTPUTS}/", f"{OUTPUTS}/download", f"{OUTPUTS}/download/"])
def test_the_archive(path: str, api: Caller) -> None:
    answer = api.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.headers["content-disposition"] == 'attachment; filename="root_quick-start_jobs_1.tar.gz"'
    assert names_in(answer.content) == [
        "gone",
        "inside",
        "logs",
        "logs/a",
        "logs/a/events.bin",
        "model.txt",
        "out",
        "outdir",
        "relative",
    ]
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        assert tar.extractfile("model.txt").read() == b"weights"  # type: ignore[union-attr]
        assert all(tar.getmember(name).issym() for name in ("out", "outdir", "relative", "inside", "gone"))
    assert SECRET.encode() not in answer.content


def test_an_archive_of_huge_holes_takes_no_time_and_keeps_no_setuid_bits(
    api: Caller, folder: Path, tmp_path: Path
) -> None:
    with (folder / "huge").open("wb") as file:
        file.seek(1 << 40)
        file.write(b"word")
        file.truncate(4 << 40)
    (folder / "model.txt").chmod(0o6755)
    (tmp_path / "a.tar.gz").write_bytes(api.get(OUTPUTS).content)
    subprocess.run(["tar", "-xzf", "a.tar.gz"], cwd=tmp_path, check=True)
    assert (tmp_path / "huge").stat().st_size == 4 << 40
    assert (tmp_path / "huge").stat().st_blocks < 1000
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert tar.getmember("model.txt").mode == 0o755


def test_a_folder_of_very_many_files_is_not_listed(api: Caller, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MAX_LISTED", 6)
    answer = api.get(f"{OUTPUTS}/tree")
    assert answer.status_code == 400
    assert "more than 6 entries" in answer.text


def test_an_archive_of_nothing(api: Caller, a_job: Run, context: ApiContext) -> None:
    assert api.get(OUTPUTS).json() == {"detail": "The run has no outputs."}
    assert api.get(f"{OUTPUTS}/tree").status_code == 400
    assert api.get(f"{OUTPUTS}/files?path=a").status_code == 404
    context.outputs_path(a_job).mkdir(parents=True)  # type: ignore[union-attr]
    assert names_in(api.get(OUTPUTS).content) == []
    assert api.get(f"{OUTPUTS}/tree").json() == {"files": [], "dirs": []}


def test_the_archive_of_a_large_file_is_made_while_it_is_sent(live_api: Caller, folder: Path) -> None:
    write(folder / "large.bin", os.urandom(8 * 2**20))
    with live_api.http.stream("GET", f"{OUTPUTS}/", headers={"Authorization": f"Token {live_api.token}"}) as answer:
        sizes = [len(chunk) for chunk in answer.iter_raw()]
    assert sum(sizes) > 8 * 2**20


def test_a_file_that_shrinks_while_it_is_packed(api: Caller, folder: Path) -> None:
    """A run keeps writing, but the archive stays valid."""
    for n in range(50):
        write(folder / f"{n:03}.txt", "x" * n)
    assert len(names_in(api.get(OUTPUTS).content)) == 59


@pytest.mark.usefixtures("folder")
def test_the_tree(api: Caller) -> None:
    found = api.get(f"{OUTPUTS}/tree/").json()
    assert list(found) == ["files", "dirs"]
    assert found["dirs"] == ["logs"]  # a link that leads outside is not followed, which would reveal its target
    assert ["model.txt", 7] in found["files"]
    assert [name for name, _ in found["files"]] == ["gone", "inside", "model.txt", "out", "outdir", "relative"]
    assert api.get(f"{OUTPUTS}/tree?path=logs").json() == {"files": [], "dirs": ["a"]}
    for path in ("logs/a", "logs/a/", "/logs/a", "logs/../logs/a", "./logs//a"):
        assert api.get(f"{OUTPUTS}/tree", params={"path": path}).json() == {"files": [["events.bin", 3]], "dirs": []}


@pytest.mark.usefixtures("folder")
def test_a_file(api: Caller) -> None:
    for path in ("model.txt", "/model.txt", "inside", "logs/../model.txt"):
        answer = api.get(f"{OUTPUTS}/files/", params={"path": path})
        assert (answer.status_code, answer.content) == (200, b"weights")
        assert int(answer.headers["content-length"]) == 7
    assert api.get(f"{OUTPUTS}/files?path=logs/a/events.bin").content == b"\0\1\2"
    answer = api.get(f"{OUTPUTS}/files?path=nosuch")
    assert (answer.status_code, answer.json()) == (404, "File not found: file_path=nosuch")
    for query in ("", "?path="):
        answer = api.get(f"{OUTPUTS}/files{query}")
        assert (answer.status_code, answer.json()) == (400, ["Files view expect a path to the file."])


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../",
        "../..",
        "../../../../polylocal.db",
        "logs/../../1/../../jobs",
        "/../../../polylocal.db",
        "/etc/passwd",
        "//etc/passwd",
        "out",
        "outdir",
        "outdir/key",
        "relative",
        "logs/../outdir/key",
        "..%2f..",
        "~/x",
        "....//....//etc/passwd",
        "\\..\\..",
        "C:\\x",
        "model.txt/../../x",
        "model.txt\0",
        "\0",
        "x" * 300,
        "x/" * 3000,
    ],
)
def test_no_way_out(path: str, api: Caller, folder: Path) -> None:
    for view in ("files", "tree"):
        answer = api.get(f"{OUTPUTS}/{view}", params={"path": path})
        assert answer.status_code in (400, 404)
        assert SECRET not in answer.text
        json.loads(answer.content)


def test_a_link_to_itself(api: Caller, folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "logs" / "up").symlink_to("..")
    assert "loop" in names_in(api.get(OUTPUTS).content)
    assert api.get(f"{OUTPUTS}/tree").status_code == 200
    for path in ("loop", "loop/x", "logs/up/logs/up/nosuch"):
        assert api.get(f"{OUTPUTS}/files", params={"path": path}).status_code in (400, 404)
        assert api.get(f"{OUTPUTS}/tree", params={"path": path}).status_code in (400, 404)


def test_names_that_are_no_text(api: Caller, folder: Path) -> None:
    write(Path(os.fsdecode(os.fsencode(folder) + b"/\xff.bin")), "x")
    write(folder / "ünï cödé\n.txt", "x")
    assert len(names_in(api.get(OUTPUTS).content)) == 11
    assert api.get(f"{OUTPUTS}/tree").status_code == 200
    assert api.get(f"{OUTPUTS}/files", params={"path": "ünï cödé\n.txt"}).content == b"x"


def test_paths_that_are_not_files(api: Caller, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert "pipe" not in names_in(api.get(OUTPUTS).content)
    assert api.get(f"{OUTPUTS}/files?path=pipe").status_code == 404
    assert api.get(f"{OUTPUTS}/files?path=logs").status_code == 404
    assert api.get(f"{OUTPUTS}/tree?path=model.txt").status_code == 400


def test_a_resumed_run_shows_the_outputs_of_its_original(api: Caller, folder: Path) -> None:
    made = api.post(f"{P}/jobs/1/resume").json()
    assert made["outputs_path"] == str(folder)
    assert "model.txt" in names_in(api.get(f"{P}/jobs/2/outputs").content)
    api.post(f"{P}/jobs/1/restart")
    assert api.get(f"{P}/jobs/3/outputs").status_code == 404


def test_where_outputs_lie(api: Caller, a_job: Run, context: ApiContext) -> None:
    expected = context.home.outputs(a_job.project_uuid, "job", 1)
    assert api.get(f"{P}/jobs/1").json()["outputs_path"] == str(expected)


def test_links_inside_lead_where_they_lead_in_the_container(api: Caller, folder: Path) -> None:
    (folder / "absolute").symlink_to(folder / "logs")
    (folder / "latest").symlink_to("logs/a")
    (folder / "twice").symlink_to("latest/../a/events.bin")
    assert set(api.get(f"{OUTPUTS}/tree").json()["dirs"]) == {"absolute", "latest", "logs"}
    for path in ("absolute/a/events.bin", "latest/events.bin", "twice", "latest/../../model.txt"):
        assert api.get(f"{OUTPUTS}/files", params={"path": path}).status_code == 200


def test_no_byte_from_outside_while_a_program_swaps_a_folder_for_a_link(
    api: Caller, folder: Path, tmp_path: Path
) -> None:
    """Check and opening are one operation."""
    write(folder / "swapped" / "key", "mine")
    (folder / "away").symlink_to(tmp_path / "secrets")
    write(folder / "file", "mine")
    (folder / "leaf").symlink_to(tmp_path / "secrets" / "key")
    ended, swaps = threading.Event(), 0

    def swap() -> None:
        nonlocal swaps
        while not ended.is_set():
            for name, other in (("swapped", "away"), ("file", "leaf")):
                (folder / name).rename(folder / "meanwhile")
                (folder / other).rename(folder / name)
                (folder / "meanwhile").rename(folder / other)
            swaps += 2

    swapping = threading.Thread(target=swap)
    swapping.start()
    answers = []
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and (len(answers) < 600 or swaps < 4000):
            for query in ("files?path=swapped/key", "files?path=file", "tree?path=swapped"):
                answers.append(api.get(f"{OUTPUTS}/{query}"))
            packed = api.get(OUTPUTS).content
            with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
                contents = [tar.extractfile(m).read() for m in tar if m.isfile()]  # type: ignore[union-attr]
            assert SECRET.encode() not in b"".join(contents)
    finally:
        ended.set()
        swapping.join()
    assert swaps > 2000
    assert not [answer for answer in answers if SECRET in answer.text]
    assert {answer.status_code for answer in answers} <= {200, 400, 404}
    assert "mine" in {answer.text for answer in answers}


def test_a_file_that_is_cut_short_while_it_is_packed(folder: Path) -> None:
    write(folder / "big.bin", b"x" * (4 << 20))
    pieces = outputs._archive(folder)
    packed = [next(pieces)]
    os.truncate(folder / "big.bin", 10)
    with tarfile.open(fileobj=io.BytesIO(b"".join([*packed, *pieces]))) as tar:
        assert tar.getmember("big.bin").size in (10, 4 << 20)
        assert "model.txt" in tar.getnames()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_pipes_and_sockets_are_not_read(kind: str, api: Caller, folder: Path) -> None:
    if kind == "pipe":
        os.mkfifo(folder / "odd")
    else:
        with socket.socket(socket.AF_UNIX) as made, chdir(folder):  # the path of a socket is limited to about 100 bytes
            made.bind("odd")
    assert "odd" not in names_in(api.get(OUTPUTS).content)
    assert api.get(f"{OUTPUTS}/files?path=odd").status_code == 404
    assert ["odd", 0] in api.get(f"{OUTPUTS}/tree").json()["files"]


def test_folders_in_each_other_without_end(api: Caller, folder: Path) -> None:
    at = os.open(folder, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    assert "model.txt" in names_in(api.get(OUTPUTS).content)
    assert api.get(f"{OUTPUTS}/tree", params={"path": "d/" * 400}).json() == {"files": [], "dirs": ["d"]}
    assert api.get(f"{OUTPUTS}/tree", params={"path": "d/" * 400 + "../" * 400}).status_code == 200
    subprocess.run(["rm", "-rf", folder / "d"], check=True)
