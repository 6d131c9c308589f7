"""The daemon: its start, its lock, its log, its server, and what keeps a home folder."""
