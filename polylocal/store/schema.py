"""The tables, as numbered migrations. Append only: a released migration is never edited."""

import json
import sqlite3

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from polylocal.store import run_values

migrations = Migrations("polylocal")

_FIRST = """
create table users (
    id integer primary key,
    username text not null unique,
    email text,
    password text,                              -- argon2 hash; null: no login by password
    is_superuser integer not null default 0 check (is_superuser in (0, 1)),
    is_active integer not null default 1 check (is_active in (0, 1)),
    created_at text not null
) strict;

create table tokens (
    id integer primary key,
    hash text not null unique,                  -- sha256 of the token: the token itself is nowhere in here
    user_id integer not null references users on delete cascade,
    run_pk integer references runs on delete cascade,   -- set: good for this run only, gone when it is done
    created_at text not null
) strict;
create index tokens_run on tokens (run_pk) where run_pk is not null;

create table projects (
    id integer primary key autoincrement,
    uuid text not null unique,
    user_id integer not null references users,
    name text not null,
    description text,
    readme text,
    tags text,                                  -- JSON list
    is_public integer not null default 1 check (is_public in (0, 1)),
    created_at text not null,
    updated_at text not null,
    deleted_at text                             -- invisible from then on, removed when its runs are gone
) strict;
create unique index projects_name on projects (user_id, name) where deleted_at is null;
create index projects_updated on projects (user_id, updated_at desc, id desc);
create index projects_deleted on projects (deleted_at) where deleted_at is not null;

create table code_references (
    id integer primary key,
    uuid text not null unique,
    project_id integer not null references projects on delete cascade,
    branch text not null,
    "commit" text,
    head text,
    is_dirty integer not null default 0 check (is_dirty in (0, 1)),
    git_url text,
    created_at text not null
) strict;
create index code_references_commit on code_references (project_id, "commit");

create table runs (
    pk integer primary key autoincrement,
    kind text not null check (kind in ('build', 'job', 'experiment', 'group', 'notebook', 'tensorboard', 'package')),
    id integer not null,                        -- counts per kind over all projects
    uuid text not null unique,
    project_id integer not null references projects,
    user_id integer not null references users,
    name text,
    description text,
    readme text,
    tags text,                                  -- JSON list
    content text,                               -- the polyaxonfile as it was sent
    config text,                                -- the same, compiled, JSON
    resources text,                             -- JSON {cpu|memory|gpu: {limits, requests}}
    status text not null,
    is_managed integer not null default 1 check (is_managed in (0, 1)),
    backend text,
    run_env text,                               -- JSON, told by the client inside the container
    data_refs text,                             -- JSON
    priority integer not null default 0,
    ttl integer check (ttl is null or ttl >= 0),    -- seconds that the container is kept afterwards
    created_at text not null,
    updated_at text not null,
    started_at text,
    finished_at text,
    build_pk integer references runs on delete set null,
    original_pk integer references runs on delete set null,
    cloning_strategy text check (cloning_strategy in ('restart', 'resume', 'copy')),
    code_id integer references code_references on delete set null,
    outputs text,                               -- folder, relative to the home folder
    node text,
    stop_requested_at text,
    deleted_at text,                            -- invisible from then on, removed when nothing of it is left
    -- what the runner knows
    container_id text,
    exit_code integer,
    restarts integer not null default 0,
    restarted_after text,                       -- the engine's finish time of the attempt that was restarted
    -- builds
    dockerfile text,
    build_key text,                             -- sha256 of project, config and commit
    is_valid integer not null default 1 check (is_valid in (0, 1)),
    image_id text,
    builder text,
    shell text,                                 -- the shell found in the image, once known
    unique (kind, id)
) strict;
create unique index runs_name on runs (project_id, kind, name) where name is not null and deleted_at is null;
create index runs_updated on runs (project_id, kind, updated_at desc, pk desc) where deleted_at is null;
create index runs_latest on runs (updated_at desc, pk desc) where deleted_at is null;
create index runs_open on runs (status, priority desc, pk)
    where status not in ('succeeded', 'failed', 'upstream_failed', 'stopped', 'skipped');
create index runs_stopping on runs (pk)
    where status not in ('succeeded', 'failed', 'upstream_failed', 'stopped', 'skipped')
    and (stop_requested_at is not null or deleted_at is not null);
create index runs_deleted on runs (deleted_at) where deleted_at is not null;
create index runs_build on runs (build_pk, kind) where build_pk is not null;
create index runs_original on runs (original_pk) where original_pk is not null;
create index runs_build_key on runs (build_key, pk desc) where build_key is not null;

create table statuses (
    id integer primary key autoincrement,
    uuid text not null unique,
    run_pk integer not null references runs on delete cascade,
    created_at text not null,
    status text not null,
    message text check (length(message) <= 256),
    traceback text,
    details text                                -- JSON object
) strict;
create index statuses_run on statuses (run_pk, id);
create trigger statuses_append_only before update on statuses
    begin select raise(abort, 'the status history is append-only'); end;

create table bookmarks (
    user_id integer not null references users on delete cascade,
    subject text not null,                      -- 'project', or the kind of a run
    object_id integer not null,                 -- the id of the project, the pk of the run
    enabled integer not null check (enabled in (0, 1)),
    created_at text not null,
    updated_at text not null,
    primary key (user_id, subject, object_id)
) strict, without rowid;

-- the last id given, per kind of run
create table sequences (kind text primary key, last integer not null) strict, without rowid;

-- visible runs per project and kind: what a list answers as `count` without counting
create table counters (
    project_id integer not null references projects on delete cascade,
    kind text not null,
    n integer not null,
    primary key (project_id, kind)
) strict, without rowid;
create trigger runs_counted_in after insert on runs when new.deleted_at is null begin
    insert into counters values (new.project_id, new.kind, 1) on conflict do update set n = n + 1;
end;
create trigger runs_counted_out after update of deleted_at on runs
    when old.deleted_at is null and new.deleted_at is not null begin
    update counters set n = n - 1 where project_id = new.project_id and kind = new.kind;
end;
create trigger runs_removed after delete on runs when old.deleted_at is null begin
    update counters set n = n - 1 where project_id = old.project_id and kind = old.kind;
end;

-- facts about this home folder
create table facts (name text primary key, value text not null) strict, without rowid;
"""


@migrations(name="0001_first")
def first(db: Database) -> None:
    _run_script(db, _FIRST)


_INDEXES = """
create index runs_outputs on runs (outputs);
create index runs_project on runs (project_id);
"""

_EXPERIMENTS = """
alter table runs add column params text;                -- JSON
alter table runs add column last_metric text;           -- JSON: the newest value of each metric
alter table runs add column framework text;

create table metrics (
    id integer primary key autoincrement,
    uuid text not null unique,
    run_pk integer not null references runs on delete cascade,
    created_at text not null,
    "values" text not null                              -- JSON {name: number}
) strict;
create index metrics_run on metrics (run_pk, created_at, id);
"""


@migrations(name="0002_experiments")
def experiments(db: Database) -> None:
    _run_script(db, _EXPERIMENTS)


@migrations(name="0003_indexes")
def indexes(db: Database) -> None:
    _run_script(db, _INDEXES)


_PLATFORM = """
-- groups, notebooks and tensorboards
alter table runs add column group_pk integer references runs on delete set null;
alter table runs add column experiment_pk integer references runs on delete set null;   -- of a tensorboard
alter table runs add column group_type text check (group_type in ('study', 'selection'));
alter table runs add column search_algorithm text;
alter table runs add column concurrency integer;
alter table runs add column iteration integer not null default 0;
alter table runs add column suggested integer not null default 0;   -- experiments that a group has made so far
alter table runs add column is_held integer not null default 0 check (is_held in (0, 1));    -- until its group lets go
alter table runs add column port integer;                       -- on loopback, while a server runs
alter table runs add column keeps_changes integer not null default 1 check (keeps_changes in (0, 1));
create index runs_group on runs (group_pk, kind, updated_at desc, pk desc) where group_pk is not null;
create index runs_experiment on runs (experiment_pk) where experiment_pk is not null;
create index runs_servers on runs (project_id, kind, pk desc) where kind in ('notebook', 'tensorboard');
create index runs_groups on runs (pk) where kind = 'group'
    and status not in ('succeeded', 'failed', 'upstream_failed', 'stopped', 'skipped');

create table selections (
    group_pk integer not null references runs on delete cascade,
    experiment_pk integer not null references runs on delete cascade,
    primary key (group_pk, experiment_pk)
) strict, without rowid;
create index selections_experiment on selections (experiment_pk);

-- archives: out of sight, and brought back when wanted
alter table runs add column archived_at text;
alter table projects add column archived_at text;
create index runs_archived on runs (kind, archived_at) where archived_at is not null;
drop trigger runs_counted_in;
drop trigger runs_counted_out;
drop trigger runs_removed;
create trigger runs_counted_in after insert on runs when new.deleted_at is null and new.archived_at is null begin
    insert into counters values (new.project_id, new.kind, 1) on conflict do update set n = n + 1;
end;
create trigger runs_counted_out after update of deleted_at, archived_at on runs
    when old.deleted_at is null and old.archived_at is null
    and (new.deleted_at is not null or new.archived_at is not null) begin
    update counters set n = n - 1 where project_id = new.project_id and kind = new.kind;
end;
create trigger runs_counted_back after update of deleted_at, archived_at on runs
    when (old.deleted_at is not null or old.archived_at is not null)
    and new.deleted_at is null and new.archived_at is null begin
    update counters set n = n + 1 where project_id = new.project_id and kind = new.kind;
end;
create trigger runs_removed after delete on runs when old.deleted_at is null and old.archived_at is null begin
    update counters set n = n - 1 where project_id = old.project_id and kind = old.kind;
end;

-- lists: their order, and the filters that are asked for most
drop index runs_updated;
create index runs_listed on runs (project_id, kind, updated_at desc, pk desc)
    where deleted_at is null and archived_at is null;
create index runs_by_status on runs (project_id, kind, status, updated_at desc, pk desc)
    where deleted_at is null and archived_at is null;

-- the last metrics and the params of experiments, one by one, so that filters find them by an index
create table run_values (
    run_pk integer not null references runs on delete cascade,
    space text not null check (space in ('metric', 'param')),
    name text not null,
    number real,
    text text,
    primary key (run_pk, space, name)
) strict, without rowid;
create index run_values_number on run_values (space, name, number, run_pk) where number is not null;
create index run_values_text on run_values (space, name, text, run_pk);
create trigger runs_measured after update of last_metric on runs when new.last_metric is not old.last_metric begin
    delete from run_values where run_pk = new.pk and space = 'metric';
    insert or replace into run_values
        select new.pk, 'metric', key, cast(value as real), cast(value as text) from json_each(new.last_metric);
end;
create trigger runs_given_params after insert on runs when new.params is not null begin
    insert or replace into run_values select new.pk, 'param', key,
        iif(type in ('integer', 'real'), cast(value as real), null),
        case type when 'true' then 'true' when 'false' then 'false' else cast(value as text) end
        from json_each(new.params);
end;
create trigger runs_changed_params after update of params on runs when new.params is not old.params begin
    delete from run_values where run_pk = new.pk and space = 'param';
    insert or replace into run_values select new.pk, 'param', key,
        iif(type in ('integer', 'real'), cast(value as real), null),
        case type when 'true' then 'true' when 'false' then 'false' else cast(value as text) end
        from json_each(new.params);
end;

insert or replace into run_values
    select pk, 'metric', key, cast(value as real), cast(value as text)
    from runs, json_each(last_metric) where last_metric is not null;
insert or replace into run_values
    select pk, 'param', key, iif(type in ('integer', 'real'), cast(value as real), null),
        case type when 'true' then 'true' when 'false' then 'false' else cast(value as text) end
    from runs, json_each(params) where params is not null;

-- code that is fetched from elsewhere, and what happens when new code comes
alter table projects add column git_url text;
alter table projects add column git_synced_at text;
alter table projects add column ci text;                -- JSON
alter table projects add column ci_created_at text;
alter table projects add column ci_updated_at text;

-- tokens that stand in a browser's cookie: good for pages, not for the API
alter table tokens add column is_session integer not null default 0 check (is_session in (0, 1));

create table searches (
    id integer primary key,
    user_id integer not null references users on delete cascade,
    project_id integer not null references projects on delete cascade,
    kind text not null,
    name text,
    query text not null,                                -- JSON
    meta text,                                          -- JSON
    created_at text not null
) strict;
create unique index searches_name on searches (user_id, project_id, kind, name) where name is not null;

create table activities (
    id integer primary key autoincrement,
    user_id integer not null references users on delete cascade,
    action text not null,                               -- created, updated, …, viewed
    subject text not null,                              -- 'project', or the kind of a run
    object_id integer not null,                         -- as the API says it
    object_name text not null,
    project_id integer references projects on delete cascade,
    created_at text not null
) strict;
create index activities_project on activities (project_id, id desc);
create index activities_viewed on activities (user_id, id desc) where action = 'viewed';
create unique index activities_last_view on activities (user_id, subject, object_id) where action = 'viewed';

create table chart_views (
    id integer primary key,
    uuid text not null unique,
    run_pk integer not null references runs on delete cascade,
    name text,
    charts text not null,                               -- JSON
    meta text,                                          -- JSON
    created_at text not null,
    updated_at text not null
) strict;
create index chart_views_run on chart_views (run_pk);
"""


@migrations(name="0004_platform")
def platform(db: Database) -> None:
    _run_script(db, _PLATFORM)


_RELIABILITY = """
alter table runs add column log_start integer not null default 0;      -- bytes of the log that are of containers before
alter table runs add column stop_reason text check (stop_reason in ('time-limit'));    -- none: a person asked for it
"""


@migrations(name="0005_reliability")
def reliability(db: Database) -> None:
    _run_script(db, _RELIABILITY)


_PACKAGES = """
-- package builds, as the ABF API knows them: a build list is a run of kind `package` and what stands here beside it
alter table projects add column is_package integer not null default 1 check (is_package in (0, 1));
alter table projects add column default_branch text not null default 'master';
create unique index users_email on users (lower(email)) where email is not null;

create table arches (id integer primary key, name text not null unique) strict;

create table platforms (
    id integer primary key autoincrement,
    name text not null unique,
    owner_id integer not null references users on delete cascade,
    platform_type text not null check (platform_type in ('main', 'personal')),
    description text,
    distrib_type text check (distrib_type in ('deb', 'dnf', 'mdv', 'rhel', 'pypi')),    -- null: a personal one
    is_open integer not null default 1 check (is_open in (0, 1)),
    released integer not null default 0 check (released in (0, 1)),
    default_branch text,
    build_image text,
    build_command text,
    build_network integer not null default 0 check (build_network in (0, 1)),
    time_living integer not null default 43200 check (time_living between 600 and 360000),  -- seconds
    created_at text not null,
    updated_at text not null
) strict;

create table repositories (
    id integer primary key autoincrement,
    platform_id integer not null references platforms on delete cascade,
    name text not null collate nocase,
    description text,
    publish_without_qa integer not null default 1 check (publish_without_qa in (0, 1)),
    is_locked integer not null default 0 check (is_locked in (0, 1)),
    stale integer not null default 0,           -- how often there was a reason to write anew what lies there
    created_at text not null,
    updated_at text not null,
    unique (platform_id, name)
) strict;

create table repository_projects (
    repository_id integer not null references repositories on delete cascade,
    project_id integer not null references projects on delete cascade,
    primary key (repository_id, project_id)
) strict, without rowid;
create index repository_projects_project on repository_projects (project_id);

-- everybody has a platform of their own, from the moment they are known
create trigger users_have_a_platform after insert on users begin
    insert into platforms (name, owner_id, platform_type, description, created_at, updated_at)
        values (new.username || '_personal', new.id, 'personal', new.username, new.created_at, new.created_at);
    insert into repositories (platform_id, name, description, created_at, updated_at)
        select id, 'main', 'main', created_at, updated_at from platforms where name = new.username || '_personal';
end;
insert into platforms (name, owner_id, platform_type, description, created_at, updated_at)
    select username || '_personal', id, 'personal', username, created_at, created_at from users;
insert into repositories (platform_id, name, description, created_at, updated_at)
    select id, 'main', 'main', created_at, updated_at from platforms;

create table build_lists (
    run_pk integer primary key references runs on delete cascade,
    project_id integer not null references projects,
    status integer not null,
    container_status integer not null default 4000,
    save_to_repository_id integer not null references repositories,
    build_for_platform_id integer not null references platforms,
    arch_id integer not null references arches,
    update_type text not null,
    project_version text not null,
    commit_hash text not null,
    auto_publish_status text not null check (auto_publish_status in ('default', 'none', 'testing')),
    auto_create_container integer not null check (auto_create_container in (0, 1)),
    use_save_to_repository integer not null check (use_save_to_repository in (0, 1)),
    include_repos text not null,                -- JSON list of ids, as the three below
    extra_repositories text not null,
    extra_build_lists text not null,
    extra_params text not null,                 -- JSON object
    include_testing_subrepository integer not null default 0 check (include_testing_subrepository in (0, 1)),
    use_cached_chroot integer not null default 0 check (use_cached_chroot in (0, 1)),
    use_extra_tests integer not null default 1 check (use_extra_tests in (0, 1)),
    save_buildroot integer not null default 0 check (save_buildroot in (0, 1)),
    external_nodes text,
    last_published_commit_hash text,
    package_version text,
    publisher_id integer references users on delete set null,
    published_at text,
    published_into text check (published_into in ('release', 'updates')),    -- where its packages lie now
    updated_at text not null
) strict;
create index build_lists_status on build_lists (status, updated_at desc, run_pk desc);
create index build_lists_key on build_lists
    (project_id, save_to_repository_id, build_for_platform_id, arch_id, published_at desc, run_pk desc);
create index build_lists_container on build_lists (run_pk) where container_status = 7000;
create index build_lists_updated on build_lists (updated_at desc, run_pk desc);
create index build_lists_published on build_lists (save_to_repository_id, build_for_platform_id, arch_id)
    where published_into is not null;

create table stored_files (
    sha1 text primary key,
    file_name text not null,
    size integer not null,                      -- bytes
    user_id integer references users on delete set null,
    is_uploaded integer not null check (is_uploaded in (0, 1)),     -- a person keeps it, not a build
    created_at text not null
) strict, without rowid;

create table packages (
    id integer primary key autoincrement,
    run_pk integer not null references build_lists on delete cascade,
    sha1 text not null references stored_files,
    file_name text not null,
    name text not null,
    type text not null check (type in ('source', 'binary')),
    epoch integer,
    version text not null,
    release text not null,
    size integer not null,
    dependent_packages text not null default '[]',      -- JSON
    updated_at text not null
) strict;
create index packages_run on packages (run_pk, id);
create index packages_sha1 on packages (sha1);

create table results (
    id integer primary key autoincrement,
    run_pk integer not null references build_lists on delete cascade,
    sha1 text not null references stored_files,
    file_name text not null,
    size integer not null,
    created_at text not null
) strict;
create index results_run on results (run_pk, id);
create index results_sha1 on results (sha1);
"""


@migrations(name="0006_packages")
def packages(db: Database) -> None:
    _run_script(db, _PACKAGES)


_CLOCKS = """
alter table runs add column boot_id text;           -- of the machine's start that `running_at_s` counts from
alter table runs add column running_at_s real;      -- when it first ran, on a clock that nobody sets
"""


@migrations(name="0007_clocks")
def clocks(db: Database) -> None:
    _run_script(db, _CLOCKS)


_SECRETS_OWNERS = """
-- whose secrets the run's `secret_refs` name; null: that user is gone, and nobody's are used
alter table runs add column secrets_user_id integer references users on delete set null;
update runs set secrets_user_id = user_id;
"""


@migrations(name="0008_secrets_owners")
def secrets_owners(db: Database) -> None:
    _run_script(db, _SECRETS_OWNERS)


_PAGES = """
alter table runs add column address text;           -- of a server's container on its network; null: it is on loopback

create table page_sessions (                        -- cookies of the own origins of notebooks and tensorboards
    hash text primary key,
    session text not null references tokens (hash) on delete cascade,  -- the browser's session that it came from
    run_pk integer not null references runs on delete cascade,
    created_at text not null
) strict;
create index page_sessions_session on page_sessions (session);
create index page_sessions_run on page_sessions (run_pk);
"""


@migrations(name="0009_pages")
def pages(db: Database) -> None:
    _run_script(db, _PAGES)


_BUILT_IMAGES = """
create table built_images (                     -- also the steps on the way to one; gone when the engine has it no more
    digits text not null,                       -- the first 12 of its id, all that builders print of a step
    build_uuid text not null,                   -- the build may be gone
    is_whole integer not null check (is_whole in (0, 1)),       -- what the build came to, no step
    projects text not null,                     -- JSON: uuids of the projects whose code is in it
    created_at text not null,
    primary key (digits, build_uuid)
) strict, without rowid;
create index built_images_build on built_images (build_uuid) where is_whole;
create index runs_image on runs (image_id) where image_id is not null;
"""


@migrations(name="0010_built_images")
def built_images(db: Database) -> None:
    _run_script(db, _BUILT_IMAGES)


@migrations(name="0011_outputs_by_project")
def outputs_by_project(db: Database) -> None:
    """Change no table. Outputs are in folders with the uuids of projects; `daemon.relocation` moves older ones.

    The entry tells older versions, which would use names again, that the database is newer.
    """


_BOUNDS = """
-- the last value of each metric stands in run_values alone: a small report does not write all of them anew
drop trigger runs_measured;
alter table runs add column metric_entries integer not null default 0;     -- reported since there is a bound
alter table runs add column metric_values integer not null default 0;      -- in all of these
alter table runs add column status_entries integer not null default 0;
-- what is looked up when something is written, or must be found when something else is deleted
drop index code_references_commit;
create index code_references_known on code_references (project_id, "commit", branch, head);
create index runs_code on runs (code_id) where code_id is not null;
create index searches_owner on searches (user_id, project_id, kind, id);
create index searches_project on searches (project_id);

-- grows with every change that may end somebody's right to something: open streams are looked at again then
create table rights_version (n integer not null) strict;
insert into rights_version values (0);
create trigger rights_of_users after update of is_active, is_superuser on users
    when new.is_active is not old.is_active or new.is_superuser is not old.is_superuser begin
    update rights_version set n = n + 1;
end;
create trigger rights_of_gone_users after delete on users begin update rights_version set n = n + 1; end;
create trigger rights_of_gone_tokens after delete on tokens begin update rights_version set n = n + 1; end;
create trigger rights_of_projects after update of is_public, deleted_at, archived_at, user_id on projects begin
    update rights_version set n = n + 1;
end;
create trigger rights_of_gone_projects after delete on projects begin update rights_version set n = n + 1; end;
create trigger rights_of_runs after update of deleted_at, archived_at, project_id on runs begin
    update rights_version set n = n + 1;
end;
create trigger rights_of_gone_runs after delete on runs begin update rights_version set n = n + 1; end;
"""


@migrations(name="0012_bounds")
def bounds(db: Database) -> None:
    _run_script(db, _BOUNDS)
    upsert = "insert or replace into run_values (run_pk, space, name, number, text) values (?, 'metric', ?, ?, ?)"
    kept = db.execute("select pk, last_metric from runs where last_metric is not null").fetchall()
    db.execute("delete from run_values where space = 'metric'")
    for pk, text in kept:  # SQLite's own JSON functions keep 15 digits of a number
        numbers = json.loads(text)
        rows = [(pk, name, float(number), json.dumps(float(number))) for name, number in numbers.items()]
        db.conn.executemany(upsert, rows)
    db.execute("update runs set last_metric = null where last_metric is not null")


_GIT_URLS = """
alter table projects add column git_by_admin integer not null default 0;    -- an admin gave `git_url`
update projects set git_by_admin = 1 where git_url is not null and user_id in (select id from users where is_superuser);
"""


@migrations(name="0013_git_urls")
def git_urls(db: Database) -> None:
    _run_script(db, _GIT_URLS)


@migrations(name="0014_warnings")
def warnings(db: Database) -> None:
    db.execute("alter table runs add column warnings text")  # a JSON list of sentences


_PARAM_VALUES = """
-- params are written to run_values together with their row: SQLite's own reader of JSON keeps 15 digits of a number
drop trigger runs_given_params;
drop trigger runs_changed_params;
delete from run_values where space = 'param';
"""


@migrations(name="0015_param_values")
def param_values(db: Database) -> None:
    _run_script(db, _PARAM_VALUES)
    upsert = "insert or replace into run_values (run_pk, space, name, number, text) values (?, 'param', ?, ?, ?)"
    for pk, text in db.execute("select pk, params from runs where params is not null"):
        params = json.loads(text)
        rows = [(pk, *run_values.param_row(name, value)) for name, value in params.items()]
        db.conn.executemany(upsert, rows)


@migrations(name="0016_locale")
def locale(db: Database) -> None:
    db.execute("alter table runs add column locale text")  # for runs of this build; "": what its image names


_PACKAGE_INDEXES = """
-- what indexes say of files: they are not read again for every publication
create table file_facts (
    sha1 text not null references stored_files on delete cascade,
    kind text not null,                         -- of the reader: one content may have names of several kinds
    format integer not null,                    -- of `about`: what an older reader wrote is read again
    md5 text not null,
    sha256 text not null,
    size integer not null,                      -- bytes
    about text not null,                        -- JSON: texts for the index
    primary key (sha1, kind)
) strict, without rowid;

-- null: clients know its repositories without an origin, and apt refuses a repository whose origin changes
alter table platforms add column origin text default 'polylocal';
update platforms set origin = null where id in (
    select t.platform_id from repositories t join build_lists l on l.save_to_repository_id = t.id
    where l.published_at is not null or l.container_status = 6000
);
"""


@migrations(name="0017_package_indexes")
def package_indexes(db: Database) -> None:
    _run_script(db, _PACKAGE_INDEXES)


@migrations(name="0018_yanked")
def yanked(db: Database) -> None:
    # the reason, which may be empty; null: the build list is not yanked
    db.execute("alter table build_lists add column yanked text")


def apply(connection: sqlite3.Connection) -> None:
    """Run the missing migrations, and set `user_version`, which lets later starts skip this."""
    database = Database(connection)
    migrations.apply(database)
    connection.execute(f"pragma user_version = {len(migrations.applied(database))}")


def _run_script(db: Database, script: str) -> None:
    """Execute statement by statement: sqlite3's executescript() would commit the migration's transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""
    if statement.strip():
        raise ValueError(f"unfinished statement in a migration: {statement!r}")
