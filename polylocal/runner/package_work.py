"""A package build: a run whose container works on a commit, with others' packages at hand, and leaves packages."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

from polylocal.engine.base import is_root
from polylocal.errors import ContainerMissing, EngineError, InvalidInput, NotFound, PackageError, StoreError
from polylocal.files import sparse
from polylocal.files.disk import is_shortage, is_trouble, size_of
from polylocal.files.folders import Entry, remove_tree, walk
from polylocal.files.logs import LogWriter
from polylocal.packages import arches, builder_images, description, kinds, reading, recipes, repositories, versions
from polylocal.packages.file_store import GUARD, Staged
from polylocal.planning import container, termination
from polylocal.planning.container import ContainerPlan, Mount
from polylocal.polyaxonfile import commands
from polylocal.polyaxonfile.commands import SH
from polylocal.runner import images, outcome, ownership
from polylocal.runner.execution import Execution
from polylocal.runner.following import Follower
from polylocal.runner.outcome import Outcome
from polylocal.runner.runner_context import RunnerContext
from polylocal.statuses import Status
from polylocal.store.build_lists import Harvest, NewFile, NewPackage
from polylocal.store.rows import BuildList, Platform, Repository, Run
from polylocal.system.cancellation import Cancelled, cancelled_by
from polylocal.text import visible

log = logging.getLogger(__name__)

HOME = PurePosixPath("/home/vagrant")  # where ABF's own workers build
PROJECT, RESULTS, MEDIA = HOME / "project", HOME / "results", HOME / "media"
MEDIA_LIST = HOME / "container/media.list"
OBJECTS = HOME / "container/objects"  # of the code's repository
DATA = "container_data.json"  # by it a build says itself which of its results are packages
UNREADABLE = "results"  # the reason of a build whose packages can't be read
KEEPS_PACKAGES = (0, 5)  # exit codes: all is well; the packages are there, and their tests failed
MOST_RESULTS = 100_000  # files
MOST_HOLES = 1 << 30  # bytes in the holes of one of them
FIRST_PAUSE_S, MOST_PAUSE_S = 2.0, 60.0  # between two attempts to store results that have no room
_MAX_DATA = 1 << 24
_MOST_NAME = 100  # characters of a name in a message
_READABLE = 0o005  # a folder, for everybody


@dataclass
class _Collection:
    """The results of a build on their way into the file store; it outlives an attempt that finds no room."""

    kind: str | None  # `distrib_type` of the platform that was built for
    exit_code: object
    may_link: bool  # nobody writes to the results any more
    staged: dict[str, Staged] = field(default_factory=dict)  # by path among the results; "" is the log
    by_inode: dict[tuple[int, int], Staged] = field(default_factory=dict)  # of files that have several names
    said: set[str] = field(default_factory=set)  # in the log of the build

    def forget(self) -> None:
        """Remove what has not been committed."""
        for file in self.staged.values():
            file.path.unlink(missing_ok=True)
        self.staged.clear()
        self.by_inode.clear()


@dataclass(frozen=True)
class Medium:
    """A repository that a build may install from."""

    name: str
    folder: Path


class PackageBuild(Execution):
    """As `Execution`: called on the run's thread."""

    @property
    def time_limit_s(self) -> float | None:
        lists, platforms = self._context.store.build_lists, self._context.store.platforms
        return float(platforms.get(lists.of_run(self.run.pk).build_for_platform_id).time_living)

    @property
    def _max_losses(self) -> int:
        return 1  # a worker's trouble is nobody's fault: once more, as ABF does

    def _again_after_no_start(self, words: str) -> bool:
        run = self.run
        if self._is_unwanted() or run.restarts >= self._max_losses:
            return False
        self._say(f"its container could not be started: {words}; once more")
        recorded = {"restarts": run.restarts + 1, "container_id": None}
        if not self._record_restart(f"Could not start: {words}: once more", recorded):
            return False
        self._cleared(run.container_id)
        return True

    def _cleared(self, container_id: str | None) -> None:
        if container_id:
            try:
                self._context.engine.remove(container_id)
            except EngineError as error:
                log.warning("run=%s: a container stays for now: %s", self.run.label, error)

    # -- the container --------------------------------------------------------------------------------------------

    def _make(self) -> str | None:
        context, run = self._context, self.run
        specification = self.run.specification
        name = specification.build.image or ""
        try:
            with cancelled_by(self._cancel):
                chosen = self._patiently(lambda: images.choose(run, name, context, self._say, self._cancel))
        except Cancelled:
            self._finish(self._stopped())
            return None
        if self._stopping.is_set():
            self._finish(self._stopped())
            return None
        if chosen.problem:
            self._say(chosen.problem)
            self._finish(outcome.not_started(chosen.problem))
            return None
        build_list = context.store.build_lists.of_run(run.pk)
        try:
            with cancelled_by(self._cancel):
                made: str = self._patiently(lambda: self._container(build_list, chosen.name))
        except Cancelled:
            self._finish(self._stopped())
            return None
        except InvalidInput as error:  # another time it is the same
            self._finish(outcome.not_started(str(error)))
            return None
        except (EngineError, NotFound) as error:
            if self._again_after_no_start(str(error)):
                self._refresh()
                return self._make()
            self._finish(outcome.not_started(str(error)))
            return None
        return made

    def _container(self, build_list: BuildList, image: str) -> str:
        """Create the container. The image's user then owns the code, and may write to the folder above it, where
        dpkg-buildpackage leaves its packages. Raises EngineError, NotFound, InvalidInput.
        """
        context, work = self._context, self._work
        made = context.engine.create(self._plan(build_list, image))
        user = context.engine.image_config(image).user
        if is_root(user) and context.uid == 0:
            return made
        folders = [work / PROJECT.name, work / RESULTS.name]
        if problem := ownership.give_to_user(folders, user, context.engine, image, context.installation):
            self._say(f"the code could not be given to the image's user, who may not be able to change it: {problem}")
        if not is_root(user):
            self._open(made, HOME)
        return made

    def _open(self, container_id: str, folder: PurePosixPath) -> None:
        try:
            self._context.engine.open_folder(container_id, folder)
        except ContainerMissing:
            raise
        except EngineError as error:
            self._say(f"the image's user may not be able to write to {folder}: {error}")

    def _plan(self, build_list: BuildList, image: str) -> ContainerPlan:
        context, run, specification = self._context, self.run, self.run.specification
        platforms, resources = context.store.platforms, specification.environment.resources
        platform, arch = platforms.get(build_list.build_for_platform_id), platforms.arch(build_list.arch_id)
        work = self._work
        self._check_out(build_list, work)
        has_history = self._add_history(build_list, work / "project", image)
        media = self._media(build_list, platform, arch.name, work / "media")
        mounts = [
            Mount(work / "project", PROJECT),
            Mount(work / "results", RESULTS),
            *(Mount(medium.folder, MEDIA / medium.name, read_only=True) for medium in media),
            *_lists(platform, media, work),
            *([Mount(context.repository(run).objects, OBJECTS, read_only=True)] if has_history else []),
        ]
        return ContainerPlan(
            name=f"{run.container_name}-{run.restarts}" if run.restarts else run.container_name,
            image=image,
            command=_command(run),
            labels=container.labels(run, context.installation),
            env=self._environment(build_list, platform, arch.name, media),
            mounts=mounts,
            limits=replace(container.limits(resources, context.capacity(resources)), pids=context.settings.pids_limit),
            network=context.settings.network if platform.build_network else "none",
            new_privileges=context.settings.new_privileges,
            cap_drop=[name for name in container.DROPPED if name != "SETFCAP"],  # rpm unpacks files that have some
            platform=arches.engine_platform(arch.name),
            entrypoint=termination.entrypoint(SH),
        )

    @property
    def _work(self) -> Path:
        """One folder for each attempt: what was made in it by another user may not be ours to remove yet."""
        return self._context.home.handover(self.run.uuid) / f"build-{self.run.restarts}"

    def _check_out(self, build_list: BuildList, work: Path) -> None:
        """The code, and the files of the file store that its `.abf.yml` names."""
        if work.exists():
            self._hand_over(None, work)  # an interrupted attempt may have given it to the image's user
        remove_tree(work)
        work.mkdir(parents=True)
        repository, project = self._context.repository(self.run), work / "project"
        repository.checkout(build_list.commit_hash, project)
        users, may_have = self._context.store.users, self._context.store.build_lists.may_have
        # the code names the files, and its project's owner may read less than an admin who has it built
        readers = [users.by_id(build_list.user_id), users.get(self.run.owner)]
        for name, sha1 in recipes.sources(self._recipe(build_list)).items():
            is_theirs = all(may_have(sha1, reader) for reader in readers)
            stored = self._context.file_store.path(sha1) if is_theirs else None
            if stored is None:
                self._say(f"{recipes.FILE}: the file store has no file {sha1}: {name} is left out")
                continue
            target = project / name
            if target.is_dir() and not target.is_symlink():
                self._say(f"{recipes.FILE}: {name} is a folder of the code: the file {sha1} is left out")
                continue
            target.unlink(missing_ok=True)
            shutil.copyfile(stored, target)
            target.chmod(0o644)
        ownership.make_writable(work / "results")

    def _recipe(self, build_list: BuildList) -> str | None:
        """The text of `.abf.yml` as it is in git, whatever a file of the file store puts in its place."""
        try:
            found = self._context.repository(self.run).read(
                build_list.commit_hash, recipes.FILE, recipes.MOST_BYTES, follows=True
            )
        except (NotFound, InvalidInput):  # there is none, or the command of the build says what is wrong with it
            return None
        return found.decode("utf-8", "replace")

    def _add_history(self, build_list: BuildList, project: Path, image: str) -> bool:
        """Add a `.git` to the code. False: the image's user could not read the objects of the project's repository."""
        repository = self._context.repository(self.run)
        is_readable = stat.S_IMODE(repository.objects.stat().st_mode) & _READABLE == _READABLE
        if not is_readable and not is_root(self._context.engine.image_config(image).user):
            why = "the image's user may not read the project's repository, by the daemon's umask"
            self._say(f"the code has no .git: {why}")
            return False
        repository.add_history(build_list.commit_hash, project, OBJECTS, recipes.sources(self._recipe(build_list)))
        return True

    def _media(self, build_list: BuildList, platform: Platform, arch: str, below: Path) -> list[Medium]:
        """As they are now: another publication meanwhile changes nothing for this build."""
        store, downloads = self._context.store.platforms, self._context.home.downloads
        wanted = list(dict.fromkeys([*build_list.include_repos, *build_list.extra_repositories]))
        if build_list.use_save_to_repository and build_list.save_to_repository_id not in wanted:
            wanted.append(build_list.save_to_repository_id)
        found: list[Medium] = []
        for repository in store.repositories_by_id(wanted):
            for sub in ("release", "updates"):
                folder = folder_of(self._context, store.get(repository.platform_id), platform, repository, arch, sub)
                name = f"{repository.platform_name}_{repository.name}_{sub}"
                is_taken = any(medium.name == name for medium in found)  # `a_b` and `c`, `a` and `b_c`
                found.append(Medium(f"{name}_{repository.id}" if is_taken else name, folder))
        for other in self._context.store.build_lists.by_ids(build_list.extra_build_lists):
            saved_to = store.repository(other.save_to_repository_id)
            folder = repositories.container(downloads, saved_to.platform_name, other.id, arch=arch, name=saved_to.name)
            found.append(Medium(f"container_{other.id}", folder))
        there = [medium for medium in found if medium.folder.is_dir()]
        for medium in there:
            repositories.snapshot(medium.folder, below / medium.name)
        return [replace(medium, folder=below / medium.name) for medium in there]

    def _environment(self, build_list: BuildList, platform: Platform, arch: str, media: list[Medium]) -> dict[str, str]:
        run, context = self.run, self._context
        api = context.api_url() if platform.build_network else f"http://127.0.0.1:{context.settings.port}"
        user = context.store.users.get(run.user)
        extra = {f"EXTRA_{name.upper()}": str(value) for name, value in build_list.extra_params.items()}
        pypi = {"PIP_FIND_LINKS": " ".join(str(MEDIA / medium.name) for medium in media)} if media else {}
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

    def _handed_out(self) -> list[Path]:
        return [self._context.home.handover(self.run.uuid)]

    def _image(self) -> str:
        return self.run.specification.build.image or ""

    def _create(self) -> str | None:
        if not self.run.restarts and (words := self._lack()):
            self._say(words)
        return super()._create()

    def _lack(self) -> str | None:
        """What its image is known to lack, where the platform's own command does not make up for it."""
        context = self._context
        platform = context.store.platforms.get(context.store.build_lists.of_run(self.run.pk).build_for_platform_id)
        found = None if platform.build_command else builder_images.lack(platform.distrib_type, self._image())
        return f"{found}, unless the build installs it" if found else None

    def _say(self, text: str) -> None:
        with LogWriter(
            self._context.log_path(self.run), self._context.log_grew, max_mib=self._context.settings.max_log_mib
        ) as writer:
            writer.mark(text)

    # -- the end --------------------------------------------------------------------------------------------------

    def _finish(self, end: Outcome, **recorded: object) -> None:
        if "exit_code" not in recorded:  # without an ended container the folders were not reclaimed before
            self._hand_over_outputs(None)
        super()._finish(end, **recorded)

    def _end(self, end: Outcome, recorded: Mapping[str, object]) -> Outcome | None:
        """Store the results before the final status is recorded, so that readers of the status find them.

        Results that can't be kept change how the build has ended.
        """
        run, context = self.run, self._context
        if run.container_id and self._must_check_log:
            with Follower(run, run.container_id, context) as follower:
                follower.is_orderly = True
                self._patiently(follower.complete)
        lists = context.store.build_lists
        platform = context.store.platforms.get(lists.of_run(run.pk).build_for_platform_id)
        collection = _Collection(platform.distrib_type, recorded.get("exit_code"), may_link=self._has_stopped(recorded))
        try:
            end, harvest = self._harvested(end, collection)
            if end.details and end.details.get("reason") == UNREADABLE:
                recorded = {**recorded, "exit_code": None}  # whatever it was, there are no packages to go on with
            with GUARD:
                for file in set(collection.staged.values()):
                    context.file_store.commit(file)
                is_recorded = lists.conclude(
                    run,
                    end.status,
                    end.message,
                    details=end.details,
                    recorded=recorded,
                    harvest=harvest,
                    is_newer=partial(versions.is_newer, platform.distrib_type),
                )
            return end if is_recorded else None
        finally:
            collection.forget()

    def _has_stopped(self, recorded: Mapping[str, object]) -> bool:
        """Whether no program of the container can write to the results any more."""
        container_id = self.run.container_id
        if not container_id or recorded.get("exit_code") is not None:
            return True
        try:
            return self._look(container_id).is_finished
        except EngineError as error:  # one that does not know the container says nothing of its programs
            log.warning("run=%s: its results are copied, since its container may still run: %s", self.run.label, error)
            return False

    def _harvested(self, end: Outcome, collection: _Collection) -> tuple[Outcome, Harvest]:
        """What a build ends with. Results that can't be read are how it ended; those without room wait for it.

        The wait ends when the build is cancelled: the results are discarded then. Raises StoreError, and OSError where
        this process lacks descriptors or memory.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return self._harvested_now(end, collection)
            except OSError as error:
                if not is_trouble(error):
                    raise
                self._say_no_room(error, collection)
            if self._is_cancelled_within(pause_s):
                return self._stopped(), self._discarded(collection)
            pause_s = min(2 * pause_s, MOST_PAUSE_S)

    def _harvested_now(self, end: Outcome, collection: _Collection) -> tuple[Outcome, Harvest]:
        """Raises OSError where the disk or the process has no room."""
        try:
            return self._harvest(end, collection)
        except (PackageError, OSError) as error:
            if isinstance(error, OSError) and (is_trouble(error) or is_shortage(error)):
                raise
            words = f"its results can't be kept: {_shown(error)}"
        except Exception as error:
            log.exception("run=%s: its results can't be kept", self.run.label)
            words = f"its results can't be kept: {type(error).__name__}: {_shown(error)}"
        self._say_once(words, collection)
        details = {"reason": UNREADABLE, "exit_code": collection.exit_code}
        return Outcome(Status.FAILED, words, details), Harvest((), self._main_log(collection.staged))

    def _say_once(self, words: str, collection: _Collection) -> None:
        if words not in collection.said:
            self._say(words)
            collection.said.add(words)

    def _say_no_room(self, error: OSError, collection: _Collection) -> None:
        words = (
            f"its results can't be stored: {error.strerror or error}. They are stored when that has passed;"
            f" `polylocal package cancel {self.run.id}` discards them"
        )
        try:
            self._say_once(words, collection)
        except StoreError as trouble:  # the log may lie on the same disk
            log.warning("run=%s: %s, and its log can't say so: %s", self.run.label, words, trouble)

    def _is_cancelled_within(self, seconds: float) -> bool:
        self._running_since = None  # the time limit is for the container, which has ended
        self._stopping.wait(seconds)
        return self._is_unwanted()

    def _discarded(self, collection: _Collection) -> Harvest:
        """The log alone, for which the removed results may have made room; nothing, if they have not."""
        collection.forget()
        try:
            remove_tree(self._work / "results")
            return Harvest((), self._main_log(collection.staged))
        except OSError as error:
            log.warning("run=%s: its log is not kept as a file of the build: %s", self.run.label, error)
            return Harvest()

    def _harvest(self, end: Outcome, collection: _Collection) -> tuple[Outcome, Harvest]:
        results, exit_code = self._work / "results", collection.exit_code
        self._check_room(results, collection)
        found = walk(results, could_not_read=_refuse) if results.is_dir() else ()
        files: dict[str, NewFile] = {}
        for entry in found:
            if entry.is_file:
                files[entry.path] = self._kept(entry, collection)
            if len(files) > MOST_RESULTS:
                raise PackageError(f"there are more than {MOST_RESULTS} of them")
        packages: list[NewPackage] = []
        if exit_code in KEEPS_PACKAGES:
            try:
                packages = _packages(files, collection, lambda words: self._say_once(words, collection))
            except PackageError as error:
                words = _shown(error)
                self._say_once(words, collection)
                end = Outcome(Status.FAILED, words, {"reason": UNREADABLE, "exit_code": exit_code})
        taken = {package.sha1 for package in packages}
        others = [file for path, file in files.items() if file.sha1 not in taken and path != DATA]
        return end, Harvest(packages, [*self._main_log(collection.staged), *others])

    def _check_room(self, results: Path, collection: _Collection) -> None:
        """Raises OSError (ENOSPC) before anything is copied, where it is certain that not all of it has room."""
        file_store = self._context.file_store
        if collection.may_link and file_store.is_beside(results):
            return
        missing = size_of(results) - sum(file.size for file in set(collection.staged.values()))
        if missing > file_store.free_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file_store.folder))

    def _kept(self, entry: Entry, collection: _Collection) -> NewFile:
        file_store = self._context.file_store
        with entry.open() as file:  # never over a link, even if a program should still be at work
            about = os.fstat(file.fileno())
            if sparse.has_more_holes(file.fileno(), MOST_HOLES):
                raise PackageError(f"{entry.path} is a sparse file of {about.st_size} bytes")
            file.seek(0)  # the look at its holes has moved it
            number = (about.st_dev, about.st_ino)
            stored = collection.staged.get(entry.path) or collection.by_inode.get(number)
            if stored is None and collection.may_link and about.st_uid == self._context.uid:
                stored = file_store.link(entry, file)
            stored = collection.staged[entry.path] = stored or file_store.stage(file)
            if about.st_nlink > 1:
                collection.by_inode[number] = stored
        return NewFile(stored.sha1, os.fsencode(entry.name).decode("utf-8", "replace"), stored.size)

    def _main_log(self, staged: dict[str, Staged]) -> list[NewFile]:
        path = self._context.log_path(self.run)
        if not path.exists():
            return []
        if (former := staged.pop("", None)) is not None:  # the log has grown since
            former.path.unlink(missing_ok=True)
        with path.open("rb") as file:
            stored = staged[""] = self._context.file_store.stage(file)
        return [NewFile(stored.sha1, f"abfworker::rpm-worker-{self.run.id}.log", stored.size)]


def _refuse(path: str, why: str) -> None:
    """Raises PackageError, since a part of the results would be lost; OSError for a reason that passes."""
    error = OSError(_ERRNO.get(why), why, path)
    if is_trouble(error) or is_shortage(error):
        raise error
    raise PackageError(f"{path} can't be read: {why}")


_ERRNO = {os.strerror(code): code for code in errno.errorcode}


def _command(run: Run) -> list[str]:
    *shell, text = commands.arguments(str((run.config or {})["run"]["cmd"]), SH)
    return [*shell, f"cd {PROJECT} && {{\n{text}\n}}"]


def folder_of(
    context: RunnerContext, saved_to: Platform, build_for: Platform, repository: Repository, arch: str, sub: str
) -> Path:
    """Where the packages of a repository lie, for one platform and architecture."""
    return repositories.folder(
        context.home.downloads,
        saved_to.name,
        build_for.name,
        is_personal=not saved_to.is_main,
        arch=arch,
        name=repository.name,
        sub=sub,
    )


def _lists(platform: Platform, media: list[Medium], work: Path) -> list[Mount]:
    """What says to the tools in the image where to install from."""
    names = [medium.name for medium in media]
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


def _packages(files: Mapping[str, NewFile], collection: _Collection, say: Callable[[str], None]) -> list[NewPackage]:
    """By what the build says itself, or else what is a package of the platform's kind. Raises PackageError."""
    staged = collection.staged
    if DATA in files:
        return _told(files, staged[DATA].path)
    packages: dict[str, NewPackage] = {}
    parts: dict[str, description.Description] = {}
    for path, file in sorted(files.items()):
        if not kinds.is_package(file.file_name, collection.kind):
            continue
        try:
            found = reading.read(staged[path].path, file.file_name)
        except PackageError as error:
            if not kinds.may_be_other(file.file_name):
                raise
            say(f"{path} is not taken for a package: {error}")
            continue
        if found is not None:
            packages[path] = _package(file, found)
            parts |= {str(Path(path).with_name(name)): found for name in found.parts}
    for path, found in parts.items():  # a Debian source is several files: they belong to one package
        if path in files:
            packages[path] = _package(files[path], found)
    return _told_apart(packages.values())


def _told_apart(packages: Iterable[NewPackage]) -> list[NewPackage]:
    """They will lie in one folder. Raises PackageError."""
    found: dict[tuple[str, str], NewPackage] = {}
    for package in packages:
        other = found.setdefault((package.type, package.file_name), package)
        if other.sha1 != package.sha1:
            raise PackageError(f"the build has left two different files of the name {package.file_name}")
    return list(found.values())


def _shown(error: Exception) -> str:
    """What an error says, as a text that the database takes: the names in it may be of any bytes."""
    return visible.one_line(str(error))


def _package(file: NewFile, found: description.Description) -> NewPackage:
    reading.check_name(file.file_name)
    about = (found.name, found.type, found.epoch, found.version, found.release)
    return NewPackage(file.sha1, file.file_name, *about, file.size)


def _told(files: Mapping[str, NewFile], data: Path) -> list[NewPackage]:
    try:
        with data.open("rb") as opened:
            entries = json.load(io.BytesIO(opened.read(_MAX_DATA)))
        if not isinstance(entries, list):
            raise ValueError("it must be a list")
        by_name: dict[str, NewFile] = {}
        for path, file in files.items():
            by_name.setdefault(path, file)
            by_name.setdefault(file.file_name, file)
        return _told_apart(
            _one_told(entry, by_name) for entry in entries if isinstance(entry, dict) and entry.get("name")
        )
    except (ValueError, RecursionError, PackageError) as error:
        raise PackageError(f"{DATA}: {error}") from error


def _one_told(entry: Mapping[str, object], by_name: Mapping[str, NewFile]) -> NewPackage:
    """`by_name`: the results by their paths and by their names."""
    name = str(entry.get("fullname") or "")
    file = by_name.get(name)
    if file is None:
        raise ValueError(f"`{name[:_MOST_NAME]}` is not among the results")
    kind = "source" if name.endswith((".src.rpm", ".dsc", ".tar.gz", ".tar.xz")) else "binary"
    epoch, dependents = entry.get("epoch"), entry.get("dependent_packages")
    number = "" if epoch is None else str(epoch)
    if number and not description.is_epoch(number):
        raise ValueError(f"`{number[:20]}` is no epoch")
    said = description.Description(
        str(entry["name"]),
        kind,
        int(number) if number else None,
        str(entry.get("version") or ""),
        str(entry.get("release") or ""),
    )
    reading.check(said, file.file_name)
    made = _package(file, said)
    return replace(made, dependent_packages=list(map(str, dependents)) if isinstance(dependents, list) else [])


def remove_container(run: Run, context: RunnerContext) -> None:
    """What a deleted build leaves among the downloads."""
    for folder in context.home.downloads.glob(f"*/container/{run.id}"):
        remove_tree(folder)


def forget_files(context: RunnerContext, among: Iterable[str] | None = None) -> None:
    """Files that no build has any more; None: whatever was left over by a process that ended in between."""
    with GUARD:
        for sha1 in context.store.build_lists.forget_files(among):
            context.file_store.forget(sha1)
        if among is None:
            context.file_store.sweep()
            for sha1 in context.store.build_lists.unknown_files(context.file_store.names()):
                context.file_store.forget(sha1)
