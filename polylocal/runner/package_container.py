"""The container of a package build: the code, the packages of other builds, and the folder for its results."""

import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from polylocal.engine import termination
from polylocal.engine.containers import is_root
from polylocal.engine.plan import DROPPED, ContainerPlan, Mount
from polylocal.errors import ContainerMissing, EngineError, InvalidInput, NotFound
from polylocal.files.folders import remove_tree
from polylocal.packages import arches, builder_images, recipes, repositories
from polylocal.planning import container
from polylocal.polyaxonfile import commands
from polylocal.polyaxonfile.commands import SH
from polylocal.runner import images, ownership
from polylocal.runner.container_operation import ContainerOperation, reclaim
from polylocal.runner.runner_context import RunnerContext
from polylocal.store.rows import BuildList, Platform, Repository, Run
from polylocal.system.cancellation import Cancelled

HOME = PurePosixPath("/home/vagrant")  # where ABF's own workers build
PROJECT, RESULTS, MEDIA = HOME / "project", HOME / "results", HOME / "media"
MEDIA_LIST = HOME / "container/media.list"
OBJECTS = HOME / "container/objects"  # of the project's git repository
_READABLE = 0o005  # mode bits: every user may enter the folder


@dataclass(frozen=True)
class InstallSource:
    """A repository that a build may install from."""

    name: str
    folder: Path


class PackageContainer:
    """Creates the container for one attempt of a build."""

    def __init__(self, operation: ContainerOperation) -> None:
        self._operation = operation
        self._execution = operation.execution
        self._log = operation.execution.log_message
        self._context = operation.context
        self.run = operation.run

    def create(self) -> str:
        """Raises Cancelled, InvalidInput, EngineError, NotFound."""
        execution, context, run = self._execution, self._context, self.run
        if not run.restarts and (words := self._missing_tools()):
            self._log(words)
        name = run.specification.build.image or ""
        chosen = execution.call_engine(lambda: images.choose(run, name, context, self._log, execution.cancel))
        if execution.is_stopping:
            raise Cancelled("The build was stopped.")
        if chosen.problem:
            self._log(chosen.problem)
            raise InvalidInput([chosen.problem])
        build_list = context.store.build_lists.of_run(run.pk)
        return execution.call_engine(lambda: self._create_container(build_list, chosen.name))

    def _create_container(self, build_list: BuildList, image: str) -> str:
        """Create the container, give the code to the image's user, and let it write to the folder above, where
        dpkg-buildpackage leaves its packages. Raises EngineError, NotFound, InvalidInput.
        """
        context, work = self._context, work_folder(self.run, self._context)
        made = context.engine.create(self._plan(build_list, image))
        user = context.engine.image_config(image).user
        if is_root(user) and context.uid == 0:
            return made
        folders = [work / PROJECT.name, work / RESULTS.name]
        if problem := ownership.give_to_user(folders, user, context.engine, image, context.installation_id):
            self._log(f"the code could not be given to the image's user, who may not be able to change it: {problem}")
        if not is_root(user):
            self._open_folder(made, HOME)
        return made

    def _open_folder(self, container_id: str, folder: PurePosixPath) -> None:
        try:
            self._context.engine.open_folder(container_id, folder)
        except ContainerMissing:
            raise
        except EngineError as error:
            self._log(f"the image's user may not be able to write to {folder}: {error}")

    def _plan(self, build_list: BuildList, image: str) -> ContainerPlan:
        context, run, specification = self._context, self.run, self.run.specification
        platforms, resources = context.store.platforms, specification.environment.resources
        platform, arch = platforms.get(build_list.build_for_platform_id), platforms.arch(build_list.arch_id)
        work = work_folder(self.run, self._context)
        self._check_out_code(build_list, work)
        has_history = self._add_history(build_list, work / "project", image)
        media = self._install_sources(build_list, platform, arch.name, work / "media")
        mounts = [
            Mount(work / "project", PROJECT),
            Mount(work / "results", RESULTS),
            *(Mount(source.folder, MEDIA / source.name, read_only=True) for source in media),
            *_source_lists(platform, media, work),
            *([Mount(context.repository(run).objects, OBJECTS, read_only=True)] if has_history else []),
        ]
        return ContainerPlan(
            name=f"{run.container_name}-{run.restarts}" if run.restarts else run.container_name,
            image=image,
            command=_command(run),
            labels=container.labels(run, context.installation_id),
            env=self._environment(build_list, platform, arch.name, media),
            mounts=mounts,
            limits=replace(container.limits(resources, context.capacity(resources)), pids=context.settings.pids_limit),
            network=context.settings.network if platform.build_network else "none",
            new_privileges=context.settings.new_privileges,
            cap_drop=[name for name in DROPPED if name != "SETFCAP"],  # rpm unpacks files with capabilities
            platform=arches.engine_platform(arch.name),
            entrypoint=termination.entrypoint(SH),
        )

    def _check_out_code(self, build_list: BuildList, work: Path) -> None:
        """Check out the code, and add the files of the file store that its `.abf.yml` names."""
        if work.exists():
            reclaim(self._operation, None, work)  # an interrupted attempt may have given it to the image's user
        remove_tree(work)
        work.mkdir(parents=True)
        repository, project = self._context.repository(self.run), work / "project"
        repository.checkout(build_list.commit_hash, project)
        users, may_read = self._context.store.users, self._context.store.files.may_read
        # the owner of the code that names a file and the user who builds must both be allowed to read it
        readers = [users.by_id(build_list.user_id), users.get(self.run.owner)]
        for name, sha1 in recipes.sources(self._recipe(build_list)).items():
            is_theirs = all(may_read(sha1, reader) for reader in readers)
            stored = self._context.file_store.path(sha1) if is_theirs else None
            if stored is None:
                self._log(f"{recipes.FILE}: the file store has no file {sha1}: {name} is left out")
                continue
            target = project / name
            if target.is_dir() and not target.is_symlink():
                self._log(f"{recipes.FILE}: {name} is a folder of the code: the file {sha1} is left out")
                continue
            target.unlink(missing_ok=True)
            shutil.copyfile(stored, target)
            target.chmod(0o644)
        ownership.make_writable(work / "results")

    def _recipe(self, build_list: BuildList) -> str | None:
        """The text of `.abf.yml` in git, even if a file of the file store replaces it."""
        try:
            code = self._context.repository(self.run)
            found = code.read(build_list.commit_hash, recipes.FILE, recipes.MAX_BYTES, follows=True)
        except (NotFound, InvalidInput):  # missing, or invalid: the build's command reports that
            return None
        return found.decode("utf-8", "replace")

    def _add_history(self, build_list: BuildList, project: Path, image: str) -> bool:
        """Add a `.git` to the code. Returns False if the image's user can't read the project's objects."""
        repository = self._context.repository(self.run)
        is_readable = stat.S_IMODE(repository.objects.stat().st_mode) & _READABLE == _READABLE
        if not is_readable and not is_root(self._context.engine.image_config(image).user):
            why = "the image's user may not read the project's repository, by the daemon's umask"
            self._log(f"the code has no .git: {why}")
            return False
        repository.add_history(build_list.commit_hash, project, OBJECTS, recipes.sources(self._recipe(build_list)))
        return True

    def _install_sources(
        self, build_list: BuildList, platform: Platform, arch: str, below: Path
    ) -> list[InstallSource]:
        """Snapshots of the repositories to install from: a later publication does not change them."""
        store, downloads = self._context.store.platforms, self._context.home.downloads
        wanted = list(dict.fromkeys([*build_list.include_repos, *build_list.extra_repositories]))
        if build_list.use_save_to_repository and build_list.save_to_repository_id not in wanted:
            wanted.append(build_list.save_to_repository_id)
        found: list[InstallSource] = []
        for repository in store.repositories_by_id(wanted):
            for sub in ("release", "updates"):
                owner = store.get(repository.platform_id)
                folder = repository_folder(self._context, owner, platform, repository, arch, sub)
                name = f"{repository.platform_name}_{repository.name}_{sub}"
                is_taken = any(source.name == name for source in found)  # `a_b` and `c`, `a` and `b_c`
                found.append(InstallSource(f"{name}_{repository.id}" if is_taken else name, folder))
        for other in self._context.store.build_lists.by_ids(build_list.extra_build_lists):
            saved_to = store.repository(other.save_to_repository_id)
            folder = repositories.container(downloads, saved_to.platform_name, other.id, arch=arch, name=saved_to.name)
            found.append(InstallSource(f"container_{other.id}", folder))
        there = [source for source in found if source.folder.is_dir()]
        for source in there:
            repositories.snapshot(source.folder, below / source.name)
        return [replace(source, folder=below / source.name) for source in there]

    def _environment(
        self, build_list: BuildList, platform: Platform, arch: str, media: list[InstallSource]
    ) -> dict[str, str]:
        run, context = self.run, self._context
        api = context.api_url() if platform.build_network else f"http://127.0.0.1:{context.settings.port}"
        user = context.store.users.get(run.user)
        extra = {f"EXTRA_{name.upper()}": str(value) for name, value in build_list.extra_params.items()}
        pypi = {"PIP_FIND_LINKS": " ".join(str(MEDIA / source.name) for source in media)} if media else {}
        return {
            **self.run.specification.environment.variables,
            **extra,
            "PACKAGE": run.project_name,
            "GIT_PROJECT_ADDRESS": f"{api}/{run.owner}/{run.project_name}.git",
            "COMMIT_HASH": build_list.commit_hash,
            "PROJECT_VERSION": build_list.project_version,
            "USE_EXTRA_TESTS": str(build_list.use_extra_tests).lower(),
            "SAVE_BUILDROOT": str(build_list.save_buildroot).lower(),
            "PLATFORM_NAME": platform.name,
            "PLATFORM_ARCH": arch,
            "FILE_STORE_ADDR": f"{api}/api/v1/file_stores",
            "UNAME": user.username,
            "EMAIL": user.email or f"{user.username}@polylocal",
            "BUILD_LIST_ID": str(build_list.id),
            "RESULTS_PATH": str(RESULTS),
            **(pypi if platform.distrib_type == "pypi" else {}),
        }

    def _missing_tools(self) -> str | None:
        """The programs that the image is known to lack, if the platform has no build command that installs them."""
        context = self._context
        platform = context.store.platforms.get(context.store.build_lists.of_run(self.run.pk).build_for_platform_id)
        image = self.run.specification.build.image or ""
        found = None if platform.build_command else builder_images.missing_tools(platform.distrib_type, image)
        return f"{found}, unless the build installs it" if found else None


def work_folder(run: Run, context: RunnerContext) -> Path:
    """The folder of one attempt. It is a new one for each, since files of another user may not be removable yet."""
    return context.home.handover(run.uuid) / f"build-{run.restarts}"


def _command(run: Run) -> list[str]:
    *shell, text = commands.arguments(str((run.config or {})["run"]["cmd"]), SH)
    return [*shell, f"cd {PROJECT} && {{\n{text}\n}}"]


def repository_folder(
    context: RunnerContext, saved_to: Platform, build_for: Platform, repository: Repository, arch: str, sub: str
) -> Path:
    """The folder with the packages of a repository for one platform and architecture."""
    return repositories.folder(
        context.home.downloads,
        saved_to.name,
        build_for.name,
        is_personal=not saved_to.is_main,
        arch=arch,
        name=repository.name,
        sub=sub,
    )


def _source_lists(platform: Platform, media: list[InstallSource], work: Path) -> list[Mount]:
    """Write the configuration of the image's package managers: the sources to install from."""
    names = [source.name for source in media]
    texts = {MEDIA_LIST: "".join(f"{name} file://{MEDIA / name}\n" for name in names)}
    if platform.distrib_type == "deb":
        lines = "".join(f"deb [trusted=yes] file:{MEDIA / name} ./\n" for name in names)
        texts[PurePosixPath("/etc/apt/sources.list.d/abf.list")] = lines
    elif platform.distrib_type != "pypi":
        sections = (f"[{name}]\nname={name}\nbaseurl=file://{MEDIA / name}\ngpgcheck=0\nenabled=1\n" for name in names)
        texts[PurePosixPath("/etc/yum.repos.d/abf.repo")] = "\n".join(sections)
    mounts = []
    for target, text in texts.items():
        path = work / target.name
        path.write_text(text)
        path.chmod(0o644)
        mounts.append(Mount(path, target, read_only=True))
    return mounts
