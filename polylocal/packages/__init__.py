"""Package builds as ABF knows them: what a build list may be, how packages are read, how repositories are made."""
