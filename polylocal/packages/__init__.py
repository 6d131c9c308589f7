"""Package builds in ABF's terms: the states of build lists, readers of packages, and writers of repositories."""
