"""The smallest project that shows how a package build runs from a commit to an index that pip installs from."""


def main() -> None:
    print("Hello from a wheel that polylocal built.")
