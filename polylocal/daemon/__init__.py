"""The daemon: its start, lock, log and server, and the maintenance of its home folder."""
