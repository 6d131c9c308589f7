"""A build config → the documented Dockerfile, byte for byte. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence

from polylocal.polyaxonfile import Build

# looked for at the root of the code; the first that is there is copied in before the build steps
REQUIREMENTS = ("polyaxon_requirements.txt", "requirements.txt")
CONDA = ("polyaxon_conda_env.yaml", "polyaxon_conda_env.yml", "conda_env.yaml", "conda_env.yml")
SETUP = ("polyaxon_setup.sh", "setup.sh")

_TAKES_HERE = re.compile(r"\s*(RUN|COPY|ADD)\b", re.IGNORECASE)
_HERE = re.compile(r"<<-?[\"']?(\w+)[\"']?")
_RUN = re.compile(r"^(?P<head>\s*RUN\s+(?:--\S+\s+)*)(?P<command>.*)$", re.IGNORECASE)
_CARRIER = "FTP_PROXY"
TAKE_SECRETS = f'eval "${_CARRIER}"; unset {_CARRIER}; '
_FROM = re.compile(r"^(?P<head>\s*FROM\s+(?:--\S+\s+)*)(?P<image>\S+)(?P<tail>.*)$", re.IGNORECASE)


def render(build: Build, files: Collection[str], lang_env: str, nvidia_bin: str = "", user: str = "") -> str:
    """The text, with one newline before the first instruction, as the platform always rendered it.

    `files` are the names at the root of the code; `lang_env` the locale lines' value where the build names none
    (empty: no locale lines); `user` is `uid:gid` to drop root for.
    """
    return "\n" + "".join(f"{line}\n" for line in _lines(build, files, lang_env, nvidia_bin, user))


def setup_file(files: Collection[str]) -> str | None:
    """The setup script that a build step may call; it is made executable."""
    return _first(SETUP, files)


def base_images(dockerfile: str) -> list[str]:
    """The images that a Dockerfile starts from, stages and `scratch` and those given by ARG left out."""
    return list(dict.fromkeys(match["image"] for _, match in _starts(dockerfile.split("\n"))))


def with_base_images(dockerfile: str, replaced: Mapping[str, str]) -> str:
    """The same Dockerfile starting from other images."""
    lines = dockerfile.split("\n")
    for number, match in _starts(lines):
        image = replaced.get(match["image"], match["image"])
        lines[number] = f"{match['head']}{image}{match['tail']}"
    return "\n".join(lines)


def with_label(dockerfile: str, name: str, value: str) -> str:
    """The same Dockerfile with a label on each image on its way: a build that comes to no end leaves some."""
    lines = dockerfile.split("\n")
    for number in reversed(list(_instructions(lines))):
        if _FROM.match(lines[number]) and not lines[number].rstrip().endswith("\\"):
            lines.insert(number + 1, f"LABEL {name}={value}")
    return "\n".join(lines)


def with_secrets(dockerfile: str) -> str:
    """The same Dockerfile with the variables of its secrets set in each RUN that a shell reads."""
    lines = dockerfile.split("\n")
    for number in _instructions(lines):
        match = _RUN.match(lines[number])
        if match and not match["command"].startswith(("[", "<<")):
            lines[number] = f"{match['head']}{TAKE_SECRETS}{match['command']}"
    return "\n".join(lines)


def secrets_argument(values: Mapping[str, str]) -> dict[str, str]:
    """The build arguments that hand secrets over to `with_secrets`.

    The builders keep the arguments for proxies, and no other, out of an image's history, its layers and the cache
    (docs.docker.com: "Predefined ARGs"); so that is how they travel, in the one of a protocol that is no more.
    """
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
    return {_CARRIER: text} if values else {}


def _starts(lines: Sequence[str]) -> Iterator[tuple[int, re.Match[str]]]:
    """The FROM lines that name an image; not those that name an earlier stage, `scratch` or an ARG."""
    stages: set[str] = set()
    for number in _instructions(lines):
        match = _FROM.match(lines[number])
        if not match:
            continue
        image, words = match["image"], match["tail"].split()
        if image.lower() not in stages and image != "scratch" and "$" not in image:
            yield number, match
        if len(words) >= 2 and words[0].lower() == "as":
            stages.add(words[1].lower())


def _instructions(lines: Sequence[str]) -> Iterator[int]:
    """The lines that begin an instruction: not comments, continued lines, or the inside of here-documents."""
    is_continued, here = False, list[str]()
    for number, line in enumerate(lines):
        if here:
            if line.strip() == here[0]:
                here.pop(0)
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue  # also between continued lines
        if not is_continued:
            yield number
        is_continued = line.rstrip().endswith("\\")
        here = _HERE.findall(line) if _TAKES_HERE.match(line) else []


def _lines(build: Build, files: Collection[str], lang_env: str, nvidia_bin: str, user: str) -> Iterator[str]:
    yield f"FROM {build.image}"
    yield ""
    locale = build.lang_env if build.lang_env is not None else lang_env
    if locale:
        yield from (f"ENV {name} {locale}" for name in ("LC_ALL", "LANG", "LANGUAGE"))
    yield "# Use bash as default shell, rather than sh"
    yield "ENV SHELL /bin/bash"
    yield ""
    if user:
        uid, _, gid = user.partition(":")
        yield "# Drop root user and use Polyaxon user"
        yield f"RUN groupadd -g {gid} -r polyaxon && useradd -r -m -g polyaxon -u {uid} polyaxon"
    if nvidia_bin:
        yield "# Update with nvidia bin"
        yield f'ENV PATH="${{PATH}}:{nvidia_bin}"'
    for name, value in build.env_vars or []:
        yield f"ENV {name} {value}"
    yield "WORKDIR /code"
    yield ""
    for names in (REQUIREMENTS, CONDA, SETUP):
        if found := _first(names, files):
            yield f"COPY build/{found} /code"
    yield from (f"RUN {step}" for step in build.build_steps or [])
    yield "COPY build /code"


def _first(names: Collection[str], files: Collection[str]) -> str | None:
    return next((name for name in names if name in files), None)
