"""`python -m polylocal`."""

from polylocal.cli import main

if __name__ == "__main__":
    main()
