"""Renders the documented Dockerfile of a build, byte for byte; reads and changes the Dockerfiles of users. Pure."""

import csv
import itertools
import re
import shlex
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from polylocal.engine.references import familiar_name
from polylocal.planning import instructions, requirements
from polylocal.planning.instructions import UNKNOWN, Excessive, Instruction, Reading, Unreadable
from polylocal.polyaxonfile import Build, build_variables, commands

# at the root of the code; the first one that exists is copied before the build steps
REQUIREMENTS = ("polyaxon_requirements.txt", "requirements.txt")
CONDA = ("polyaxon_conda_env.yaml", "polyaxon_conda_env.yml", "conda_env.yaml", "conda_env.yml")
SETUP = ("polyaxon_setup.sh", "setup.sh")

_URL = re.compile(r"\w[\w+.-]*://(?P<authority>[^/?#]*)|(?P<host>[\w.-]+@[^:/]+):")
_Variables = ChainMap[str, str]  # ENV, then ARG
_NONE: Mapping[str, str] = MappingProxyType({})
_OFFICIAL_FRONTEND = re.compile(r"docker/dockerfile(-upstream)?[:@].*")
_STAGE_NUMBER = re.compile(r"[0-9]{1,18}")  # a longer one is a name to builders
_RUN = re.compile(r"^(?P<head>\s*RUN\s+(?:--\S+\s+)*)(?P<command>.*)$", re.IGNORECASE)
_CARRIER = "FTP_PROXY"
# builders set these from the settings of the engine's client, whatever a Dockerfile assigns
_PROXIES = frozenset(
    each for name in ("HTTP", "HTTPS", "FTP", "NO", "ALL") for each in (f"{name}_PROXY", f"{name.lower()}_proxy")
)
TAKE_SECRETS = f'eval "${_CARRIER}"; unset {_CARRIER}; '


def render(
    build: Build,
    files: Collection[str],
    lang_env: str,
    nvidia_bin: str = "",
    user: str = "",
    included: Sequence[str] = (),
) -> str:
    """The text of the Dockerfile. A newline precedes the first instruction, as in the platform's own.

    `files`: the names at the root of the code. `lang_env`: the locale, unless the build names one; "": no locale lines.
    `nvidia_bin`: a folder for PATH. `user`: `uid:gid` of the user that replaces root. `included`: the files that the
    requirements include.
    """
    locale = build.lang_env if build.lang_env is not None else lang_env
    lines = [f"FROM {build.image}", ""]
    lines += [f"ENV {name} {locale}" for name in ("LC_ALL", "LANG", "LANGUAGE")] if locale else []
    lines += ["# Use bash as default shell, rather than sh", "ENV SHELL /bin/bash", ""]
    if user:
        uid, _, gid = user.partition(":")
        lines.append("# Drop root user and use Polyaxon user")
        lines.append(f"RUN groupadd -g {gid} -r polyaxon && useradd -r -m -g polyaxon -u {uid} polyaxon")
    lines += ["# Update with nvidia bin", f'ENV PATH="${{PATH}}:{nvidia_bin}"'] if nvidia_bin else []
    lines += [build_variables.instruction(name, value) for name, value in build.env_vars or []]
    lines += ["WORKDIR /code", ""]
    copied = [found for names in (REQUIREMENTS, CONDA, SETUP) if (found := _first(names, files))]
    lines += [f"COPY build/{name} /code" for name in copied]
    lines += requirements.copies(path for path in included if path not in copied)
    lines += map(commands.run_instruction, build.build_steps or [])
    return "\n" + "".join(f"{line}\n" for line in [*lines, "COPY build /code"])


def setup_file(files: Collection[str]) -> str | None:
    """The name of the setup script, which must be executable for the build steps; None: there is none."""
    return _first(SETUP, files)


def files_with_includes(files: Collection[str]) -> list[str]:
    """The copied files that may include other files."""
    return [found for names in (REQUIREMENTS, CONDA) if (found := _first(names, files))]


@dataclass(frozen=True)
class Reference:
    """An image that a Dockerfile names. `line` counts from 1. `stages`: the names of the stages before it.

    `is_trigger`: an ONBUILD instruction names it, so only a later build uses it. `is_inner`: it is a stage of this
    build, or `scratch`.
    """

    line: int
    image: str
    is_base: bool
    is_trigger: bool = False
    stages: frozenset[str] = frozenset()
    is_inner: bool = False


@dataclass(frozen=True)
class Base:
    """The properties of an image that images built from it inherit: its variables and its ONBUILD triggers."""

    env: Mapping[str, str] = field(default_factory=dict)
    triggers: Sequence[str] = ()


def references(dockerfile: str, arguments: Mapping[str, str] = _NONE) -> list[Reference]:
    """Every image that a build reads from, without stages and `scratch`.

    `arguments`: the build arguments, and those that the builder sets itself. Raises Unreadable.
    """
    first, *others = [
        [reference for _, reference in _references(reading, arguments) if not reference.is_inner]
        for reading in instructions.read(dockerfile)
    ]
    for other in others:
        if other != first:
            differing = min((*(set(first) ^ set(other)), *first, *other), key=lambda reference: reference.line)
            raise Unreadable(f"the part from line {differing.line} on reads differently by different builders")
    return first


def triggers(lines: Iterable[str], base: Reference) -> list[Reference]:
    """The images that the ONBUILD triggers of a base image name. Raises Unreadable."""
    found = []
    for instruction in itertools.chain.from_iterable(map(instructions.parse_trigger, lines)):
        found += [
            Reference(base.line, image, is_base=False, stages=base.stages)
            for image in _flag_images(instruction, base.stages, base.line)
        ]
    return found


def with_base_images(dockerfile: str, replaced: Mapping[str, str], arguments: Mapping[str, str] = _NONE) -> str:
    """The Dockerfile with images replaced, and with the variables in FROM expanded.

    So the builder reads exactly the names that were checked. Raises Unreadable.
    """
    lines = dockerfile.split("\n")
    found = _references(instructions.read(dockerfile)[0], arguments)
    for instruction, both in itertools.groupby(found, key=lambda each: each[0]):
        renamed = instruction
        for _, reference in both:
            image = reference.image if reference.is_inner else replaced.get(reference.image, reference.image)
            renamed = renamed if reference.is_trigger else _rename(renamed, reference, image)
        text = renamed.text
        if text != instruction.text:
            end = "\r" if lines[instruction.last].endswith("\r") else ""
            count = instruction.last - instruction.first  # so that later lines keep their numbers
            lines[instruction.first : instruction.last + 1] = [text + end, *[""] * count]
    return "\n".join(lines)


def with_label(dockerfile: str, name: str, value: str) -> str:
    """The Dockerfile with a label after each FROM, so that the layers of an unfinished build carry it, too."""
    lines = dockerfile.split("\n")
    for instruction in reversed(instructions.read(dockerfile)[0].instructions):
        if instruction.keyword == "from":
            lines.insert(instruction.last + 1, f"LABEL {name}={value}")
    return "\n".join(lines)


def with_owner(dockerfile: str, user: str) -> str:
    """A rendered Dockerfile whose copied code belongs to the user of the image.

    A user without a group gets the group of root, as the engine does it for a user that the image does not know.
    """
    owner = user if ":" in user else f"{user}:0"
    return "".join(
        line.replace("COPY ", f"COPY --chown={owner} ", 1) if line.startswith("COPY ") else line
        for line in dockerfile.splitlines(keepends=True)
    )


def with_secrets(dockerfile: str) -> str:
    """The Dockerfile with the variables of the secrets set in each RUN that a shell executes."""
    lines = dockerfile.split("\n")
    for instruction in instructions.read(dockerfile)[0].instructions:
        line = lines[instruction.first]
        match = _RUN.match(line)
        if script := commands.with_preamble(line, TAKE_SECRETS):
            lines[instruction.first] = script
        elif match and not match["command"].startswith(("[", "<<")):
            lines[instruction.first] = f"{match['head']}{TAKE_SECRETS}{match['command']}"
    return "\n".join(lines)


def downloads(dockerfile: str, arguments: Mapping[str, str], bases: Mapping[str, Base]) -> list[str]:
    """The hosts from which the builder downloads files for ADD. Raises Unreadable: one depends on an unknown value."""
    found = (_downloads(reading, arguments, bases) for reading in instructions.read(dockerfile))
    return list(dict.fromkeys(itertools.chain.from_iterable(found)))


def platform_arguments(platform: str) -> dict[str, str]:
    """The arguments that BuildKit sets itself on a machine of this platform (`os/architecture[/variant]`)."""
    system, architecture, variant = (*platform.split("/"), "", "")[:3]
    about = {"PLATFORM": platform, "OS": system, "ARCH": architecture, "VARIANT": variant}
    return {f"{kind}{name}": value for kind in ("BUILD", "TARGET") for name, value in about.items()}


def foreign_frontends(dockerfile: str) -> list[str]:
    """The frontends that it names for BuildKit and that are not Docker's own: they may read Dockerfiles differently."""
    return [name for name in instructions.syntaxes(dockerfile) if not _OFFICIAL_FRONTEND.fullmatch(familiar_name(name))]


def secrets_argument(values: Mapping[str, str]) -> dict[str, str]:
    """The build arguments that carry the secrets to the instructions of `with_secrets`.

    Builders keep only the proxy arguments out of an image's history, layers and cache (docs.docker.com: "Predefined
    ARGs"). So the secrets are passed in the one for FTP, which is no longer used.
    """
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
    return {_CARRIER: text} if values else {}


def _references(reading: Reading, arguments: Mapping[str, str]) -> Iterator[tuple[Instruction, Reference]]:
    values: _Variables = ChainMap({}, dict(arguments))
    stages, triggers, is_global, triggered = dict[str, list[Instruction]](), list[Instruction](), True, 0
    for instruction in reading.instructions:
        line = instruction.first + 1
        if instruction.keyword == "from":
            is_global = False
            image, behind = _base_of(instruction, values, reading.escape)
            known = frozenset(stages)
            is_inner = image == "scratch" or image.lower() in stages
            if image:
                yield instruction, Reference(line, image, is_base=True, stages=known, is_inner=is_inner)
            begun_by = stages.get(image.lower(), [])
            triggered += len(begun_by)
            if triggered > instructions.MAX_INSTRUCTIONS:
                raise Excessive(f"its stages have more than {instructions.MAX_INSTRUCTIONS} triggers of others")
            for trigger in begun_by:
                for named in _flag_images(trigger, known, line):
                    yield trigger, Reference(trigger.first + 1, named, is_base=False, stages=known)
            triggers = []
            if len(behind) >= 2 and behind[0].lower() == "as":
                stages[behind[1].lower()] = triggers
            continue
        if is_global:
            _assign(instruction, values, reading.escape, values)
        if instruction.trigger:
            triggers.append(instruction.trigger)
        for named in _flag_images(instruction.trigger or instruction, frozenset(stages), line):
            is_trigger = instruction.trigger is not None
            yield instruction, Reference(line, named, False, is_trigger, frozenset(stages))


def _base_of(instruction: Instruction, values: Mapping[str, str], escape: str) -> tuple[str, list[str]]:
    """The image of a FROM, and the words after it. Raises Unreadable."""
    line, (raw, *behind) = instruction.first + 1, instruction.words or [""]
    image = instructions.expand(raw, values, escape)
    if UNKNOWN in image:
        raise Unreadable(f"line {line}: `{raw}` needs a value that is not known before the build")
    if raw and not image:
        raise Unreadable(f"line {line}: `{raw}` is empty: its ARG needs a default, as in `ARG NAME=value`")
    return image, behind


def _flag_images(instruction: Instruction, stages: Collection[str], line: int) -> Iterator[str]:
    """The images in the flags of an instruction. Raises Unreadable."""
    for flag in instruction.flags:
        name, _, value = flag.partition("=")
        if name == "--mount":
            value = _mount_source(value, line)
        elif name != "--from":
            continue
        if "$" in value:
            raise Unreadable(f"line {line}: `{value}` needs its own stage: `FROM {value} AS name`, then `name`")
        if value and not _STAGE_NUMBER.fullmatch(value) and value != "scratch" and value.lower() not in stages:
            yield value


def _mount_source(value: str, line: int) -> str:
    """The `from` of a mount; "": it has none. Raises Unreadable."""
    try:
        fields = next(csv.reader([value]), [])
    except csv.Error as error:
        raise Unreadable(f"line {line}: `--mount={value}` can't be read: {error}") from error
    found = [field.partition("=")[2] for field in fields if field.partition("=")[0].strip().lower() == "from"]
    return found[-1] if found else ""


def _downloads(reading: Reading, arguments: Mapping[str, str], bases: Mapping[str, Base]) -> Iterator[str]:
    outside: _Variables = ChainMap({}, dict(arguments))
    values, stages, is_global = outside, dict[str, tuple[_Variables, list[Instruction]]](), True
    triggers: list[Instruction] = []
    for instruction in reading.instructions:
        if instruction.keyword != "from":
            _assign(instruction, outside if is_global else values, reading.escape, outside)
            if instruction.trigger:
                triggers.append(instruction.trigger)
            yield from _add_hosts(instruction.trigger or instruction, values, reading.escape)
            continue
        is_global = False
        raw, *behind = instruction.words or [""]
        image = instructions.expand(raw, outside, reading.escape)
        base = bases.get(image, Base())
        handed_on = (
            ChainMap(dict(base.env), {}),
            [*itertools.chain.from_iterable(map(instructions.parse_trigger, base.triggers))],
        )
        variables, begun_by = stages.get(image.lower(), handed_on)
        values = ChainMap(dict(variables.maps[0]), dict(arguments))
        for trigger in begun_by:
            _assign(trigger, values, reading.escape, outside)
            yield from _add_hosts(trigger, values, reading.escape)
        triggers = []
        if len(behind) >= 2 and behind[0].lower() == "as":
            stages[behind[1].lower()] = values, triggers


def _assign(instruction: Instruction, values: _Variables, escape: str, outside: Mapping[str, str]) -> None:
    """Assigns the variables of an ARG or ENV. A variable of ENV hides an argument of the same name."""
    if instruction.keyword not in ("arg", "env"):
        return
    found = instructions.assignments(instruction.rest, escape)
    if instruction.keyword == "env" and found and found[0][1] is None:  # the older form: `ENV name value`
        found = [(found[0][0], instruction.rest.partition(found[0][0])[2].strip())]
    is_argument = instruction.keyword == "arg"
    for name, value in found:
        if is_argument and value is None:
            value = outside.get(name)
        try:
            expanded = instructions.expand(value or "", values, escape)
        except Excessive:
            raise
        except Unreadable:
            expanded = UNKNOWN
        if is_argument and name in _PROXIES:
            expanded = UNKNOWN
        values.maps[is_argument][name] = expanded


def _add_hosts(instruction: Instruction, values: Mapping[str, str], escape: str) -> Iterator[str]:
    """The hosts of an ADD. Raises Unreadable."""
    for source in instructions.sources(instruction) if instruction.keyword == "add" else ():
        word = instructions.expand(source, values, escape)
        match = _URL.match(word)
        if UNKNOWN in word[: match.end() if match else None]:
            raise Unreadable(f"line {instruction.first + 1}: write the address of `ADD {source}` without variables")
        if match:
            yield (match["authority"] or match["host"]).rpartition("@")[2]


def _rename(instruction: Instruction, reference: Reference, image: str) -> Instruction:
    """The instruction with the reference replaced by `image`. Raises Unreadable."""
    if reference.is_base:
        raw = instruction.words[0]
        return replace(instruction, text=f"{instruction.before_rest}{image}{instruction.rest[len(raw) :]}")
    if image == reference.image:
        return instruction
    plain = re.compile(rf"(?<=from=){re.escape(reference.image)}(?=[\s,]|$)")
    flags = instruction.before_rest
    if not plain.search(flags):
        raise Unreadable(f"line {reference.line}: write the image as `from={reference.image}`, without quotes")
    return replace(instruction, text=plain.sub(lambda match: image, flags) + instruction.rest)


def _first(names: Collection[str], files: Collection[str]) -> str | None:
    return next((name for name in names if name in files), None)
