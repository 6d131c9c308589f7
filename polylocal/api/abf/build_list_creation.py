"""Checks the body of a new build list, and returns the build list to insert. Reports all problems at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from polylocal.api import rights
from polylocal.api.abf.values import Json, boolean, integer, integers, text
from polylocal.api.api_context import ApiContext
from polylocal.errors import InvalidInput, NotAllowed, NotFound
from polylocal.git import tag_versions
from polylocal.git.repository import Repository as Code
from polylocal.git.tag_versions import Described
from polylocal.packages import arches, builder_images, extra, kinds, recipes
from polylocal.packages.statuses import UPDATE_TYPES, ContainerStatus
from polylocal.settings import Settings
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Arch, Platform, Project, Repository, User

_MAX_VERSION = 255
_MAX_VARIABLE = 2**17 - 1  # bytes of a variable, name and value, that Linux accepts
_PYPROJECT = "pyproject.toml"
_PKG_INFO = "PKG-INFO"
_AUTO_PUBLISH = ("default", "none", "testing")


class InvalidBuildList(Exception):
    """Holds all problems of a body, a sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(". ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class NewBuildList:
    """A checked build list: the arguments of `store.build_lists.create`."""

    project: Project
    run: NewRun
    values: Json


@dataclass
class _NamedRows:
    """The existing rows that the caller names, and the problems of the others."""

    project: Project | None = None
    arch: Arch | None = None
    build_for: Platform | None = None
    save_to: Repository | None = None  # the repository to publish in
    platform: Platform | None = None  # of `save_to`
    include_repos: list[int] = field(default_factory=list)
    version: str | None = None
    commit: str | None = None
    described: Described | None = None  # the parsed output of `git describe`, if the caller sends it
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Source:
    """The code of a build list, and its own instructions for the build."""

    code: Code
    commit: str
    project: str  # its name
    version: str | None  # the branch, tag or commit that the caller names
    described: Described | None

    @cached_property
    def files(self) -> set[str]:
        return self.code.files(self.commit)

    @cached_property
    def pyproject(self) -> str | None:
        """The text of pyproject.toml; None: it does not exist. Raises InvalidInput, NotFound: it can't be read."""
        return self._text(_PYPROJECT)

    @property
    def recipe(self) -> str | None:
        """The text of `.abf.yml`, with the same errors."""
        return self._text(recipes.FILE)

    def _text(self, name: str) -> str | None:
        if name not in self.files:
            return None
        return self.code.read(self.commit, name, recipes.MAX_BYTES, follows=True).decode("utf-8", "replace")

    @cached_property
    def python_version(self) -> str | None:
        """The version by a tag, or by the PKG-INFO of an unpacked source distribution; None: neither has one."""
        try:
            names = tag_versions.names(self.project, self.pyproject)
        except (NotFound, InvalidInput):
            names = {self.project}
        described = self.described and tag_versions.version(self.described, names)
        if described:
            return described
        found = self.code.describe(self.commit, self.version, partial(tag_versions.of_tag, projects=names))
        if found:
            return tag_versions.version(found, names)
        try:
            metadata = self._text(_PKG_INFO)
        except (NotFound, InvalidInput):
            return None
        return tag_versions.of_metadata(metadata) if metadata else None


def check(fields: Json, user: User, context: ApiContext) -> NewBuildList:
    """Check the section `build_list` of a body. The insertion is left to the caller.

    Raises InvalidBuildList; NotAllowed; StoreError: the disk is full.
    """
    store = context.store
    wanted = _find_rows(fields, store)
    _check_rights(wanted, user)
    _add_problems(wanted, fields, context)
    project, arch, build_for, save_to = wanted.project, wanted.arch, wanted.build_for, wanted.save_to
    platform, commit = wanted.platform, wanted.commit
    if wanted.problems or not (project and arch and build_for and save_to and platform and commit):
        raise InvalidBuildList(wanted.problems)
    context.check_room()
    if build_for.build_image is None:  # the images of the engine may change before the build begins
        image = builder_images.default(build_for.distrib_type, context.has_image)
        build_for = replace(build_for, build_image=image)
    values = {
        "save_to_repository_id": save_to.id,
        "build_for_platform_id": build_for.id,
        "arch_id": arch.id,
        "project_version": wanted.version,
        "commit_hash": commit,
        "include_repos": wanted.include_repos,
        "use_save_to_repository": platform.is_main or boolean(fields.get("use_save_to_repository"), True),
        "extra_repositories": _extra_repositories(platform, integers(fields.get("extra_repositories")), user, store),
        "extra_build_lists": _extra_build_lists(platform, arch, integers(fields.get("extra_build_lists")), user, store),
        **_options(fields, save_to),
    }
    code = _Source(context.repository(project), commit, project.name, wanted.version, wanted.described)
    config, resources = _config(build_for, code, context.settings), _resources(context.settings)
    run = NewRun(Kind.PACKAGE, config=config, resources=resources, code={"commit": commit})
    return NewBuildList(project, run, values)


def _options(fields: Json, save_to: Repository) -> Json:
    """The columns that do not depend on other rows."""
    auto_publish = _auto_publish(fields) if save_to.publish_without_qa else "none"
    return {
        "update_type": text(fields.get("update_type")),
        "auto_publish_status": auto_publish,
        "auto_create_container": auto_publish != "default" and boolean(fields.get("auto_create_container"), False),
        "extra_params": _extra_params(fields.get("extra_params")),
        "include_testing_subrepository": boolean(fields.get("include_testing_subrepository"), False),
        "use_cached_chroot": boolean(fields.get("use_cached_chroot"), False),
        "use_extra_tests": boolean(fields.get("use_extra_tests"), True),
        "save_buildroot": boolean(fields.get("save_buildroot"), False),
        "external_nodes": text(fields.get("external_nodes")),
    }


def _find_rows(fields: Json, store: Store) -> _NamedRows:
    platforms = store.platforms
    wanted = _NamedRows(include_repos=integers(fields.get("include_repos")))
    buildable = {arch.id: arch for arch in platforms.arches(arches.buildable())}
    wanted.arch = buildable.get(integer(fields.get("arch_id")) or 0)
    wanted.project = _find(store.projects.visible, fields.get("project_id"))
    wanted.build_for = _find(platforms.get, fields.get("build_for_platform_id"))
    wanted.save_to = _find(platforms.repository, fields.get("save_to_repository_id"))
    wanted.platform = platforms.get(wanted.save_to.platform_id) if wanted.save_to else None
    return wanted


def _find(find: Any, value: object) -> Any:
    number = integer(value)
    try:
        return None if number is None else find(number)
    except NotFound:
        return None


def _check_rights(wanted: _NamedRows, user: User) -> None:
    project, build_for = wanted.project, wanted.build_for
    if project and not (project.is_package and rights.may_write(user, project)):
        raise NotAllowed
    if build_for and not rights.may_see(user, build_for):
        raise NotAllowed


def _add_problems(wanted: _NamedRows, fields: Json, context: ApiContext) -> None:
    problems, platforms = wanted.problems, context.store.platforms
    for found, name in (
        (wanted.project, "Project"),
        (wanted.arch, "Architecture"),
        (wanted.build_for, "Build for platform"),
        (wanted.save_to, "Save to repository"),
    ):
        if found is None:
            problems.append(f"{name} can't be blank")
    _resolve(wanted, context, text(fields.get("commit_hash")), text(fields.get("project_version")))
    _describe(wanted, text(fields.get("git_describe")))
    if not wanted.include_repos:
        problems.append("Included repositories can't be blank")
    if fields.get("update_type") not in UPDATE_TYPES:
        problems.append("Update type is not included in the list")
    problems += _problems_of_params(_extra_params(fields.get("extra_params")))
    build_for, platform = wanted.build_for, wanted.platform
    if build_for and platform and platform.is_main and platform.id != build_for.id:
        problems.append("Build for platform Only the primary platform can be selected for the main repository!")
    if build_for and kinds.is_rpm(build_for.distrib_type) and not extra.has("rpmfile"):
        problems.append(f"Build for platform {build_for.name}: {extra.install_hint('an rpm package')}")
    if build_for and not build_for.is_main:
        problems.append('Build for platform Type of platform in "build_for_platform" should be "main"')
    if build_for and wanted.include_repos:
        known = platforms.repositories_by_id(wanted.include_repos)
        if len(known) != len(wanted.include_repos) or any(item.platform_id != build_for.id for item in known):
            problems.append("Save to repository Include repos have to belongs to build for platform")
    if wanted.project and wanted.save_to and not platforms.has_project(wanted.save_to, wanted.project.id):
        problems.append("Save to repository Repository does not contain project.")


def _resolve(wanted: _NamedRows, context: ApiContext, commit: str | None, version: str | None) -> None:
    if commit is None and version is None:
        wanted.problems.append("Version can't be blank")
        return
    if len(version or "") > _MAX_VERSION:  # it becomes a variable of the container
        wanted.problems.append(f"Version is too long (maximum is {_MAX_VERSION} characters)")
        return
    if wanted.project is None:
        return
    named = commit or version or ""
    found = context.repository(wanted.project).resolve(named)
    if found is None:
        wanted.problems.append(f"Commit hash Unable find commit '{named}' in project")
    wanted.commit, wanted.version = found, version or found


def _describe(wanted: _NamedRows, text: str | None) -> None:
    """Parse the field `git_describe`. An upload has no tags, so the client sends the output of its own git."""
    if text is None:
        return
    wanted.described = tag_versions.parse(text)
    if wanted.described is None:
        wanted.problems.append(
            "Git describe is not an output of `git describe --tags --long`, such as `v1.2-0-g1a2b3c4`"
        )


def _auto_publish(fields: Json) -> str:
    """Two keys set the same thing. `auto_publish_status` has precedence."""
    status = text(fields.get("auto_publish_status"))
    if status in _AUTO_PUBLISH:
        return status
    return "default" if boolean(fields.get("auto_publish"), True) else "none"


def _extra_repositories(platform: Platform, wanted: list[int], user: User, store: Store) -> list[int]:
    """Only personal platforms have them. Those that the user may not see are left out."""
    if platform.is_main:
        return []
    platforms = store.platforms
    found = {one.id: platforms.get(one.platform_id) for one in platforms.repositories_by_id(wanted)}
    return [number for number in wanted if number in found and rights.may_see(user, found[number])]


def _extra_build_lists(platform: Platform, arch: Arch, wanted: list[int], user: User, store: Store) -> list[int]:
    """Those with a container of the same architecture; for a main platform, of the same platform too."""
    fitting = []
    for other in store.build_lists.by_ids(wanted):
        saved_to = store.platforms.repository(other.save_to_repository_id)
        fits = other.container_status == ContainerStatus.PUBLISHED and other.arch_id == arch.id
        fits = fits and (not platform.is_main or saved_to.platform_id == platform.id)
        if fits and (other.user_id == user.id or rights.may_read(user, store.projects.by_id(other.project_id))):
            fitting.append(other.id)
    return [number for number in wanted if number in fitting]


def _extra_params(value: object) -> dict[str, str]:
    """Variables of the build. Names that no shell variable can have are left out."""
    if not isinstance(value, Mapping):
        return {}
    plain = {str(name): text(item) for name, item in value.items()}
    return {name: item for name, item in plain.items() if item and name.isascii() and name.isidentifier()}


def _problems_of_params(params: Mapping[str, str]) -> list[str]:
    """Variables that a container can be created with, and can't be started with."""
    problems = []
    for name, value in params.items():
        size = len(f"EXTRA_{name}={value}".encode())
        if "\0" in value:
            problems.append(f"Extra params {name[:_MAX_VERSION]} has a null character, which no variable can have")
        elif size > _MAX_VARIABLE:
            problems.append(f"Extra params {name[:_MAX_VERSION]} has {size} bytes (maximum is {_MAX_VARIABLE})")
    return problems


def _config(build_for: Platform, source: _Source, settings: Settings) -> Json:
    """The polyaxonfile of the build. It is made once, so a repeated build runs the same command in the same image."""
    command = _command(build_for, source)
    resources = _resources(settings)
    variables = tag_versions.variables(source.python_version) if build_for.distrib_type == "pypi" else {}
    environment: Json = {"resources": resources} if resources else {}
    environment |= {"env_vars": dict(variables)} if variables else {}
    config: Json = {"run": {"cmd": command}, "build": {"image": build_for.build_image}, "version": 1, "kind": "job"}
    return {**config, "environment": environment} if environment else config


def _command(build_for: Platform, source: _Source) -> str:
    code, commit, files = source.code, source.commit, source.files
    try:
        recipe = source.recipe
    except InvalidInput:
        return recipes.complaint(f"{recipes.FILE} has more than {recipes.MAX_BYTES} bytes")
    except NotFound:
        return recipes.complaint(f"{recipes.FILE} is a link to no file of the code")
    pyproject, problem, version = None, None, None
    if build_for.distrib_type == "pypi":
        version = source.python_version
        try:
            pyproject = source.pyproject
        except (NotFound, InvalidInput) as error:
            problem = str(error)
    target = recipes.Target(build_for.distrib_type, build_for.build_command, build_for.build_network)
    found = recipes.Code(files, code.has_folder(commit, "debian"), recipe, pyproject, problem, version)
    return recipes.command(target, found)


def _resources(settings: Settings) -> Json | None:
    limits = {"cpu": settings.package_cpus, "memory": settings.package_memory_mib}
    return {name: {"limits": amount} for name, amount in limits.items() if amount} or None
