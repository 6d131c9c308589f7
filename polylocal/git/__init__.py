"""The code of projects, in bare git repositories. Uses the `git` command."""
