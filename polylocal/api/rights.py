"""The rights of users to projects and platforms. Pure."""

from polylocal.store.rows import Platform, Project, User


def may_read(user: User, project: Project) -> bool:
    return project.is_public or may_write(user, project)


def may_write(user: User, project: Project) -> bool:
    return user.is_superuser or project.user_id == user.id


def may_see(user: User, platform: Platform) -> bool:
    return platform.is_open or may_manage(user, platform)


def may_manage(user: User, platform: Platform) -> bool:
    return user.is_superuser or platform.owner_id == user.id
