"""The code of projects: git repositories, driven by the `git` command."""
