"""polylocal: the Polyaxon v0 REST API on one machine, with nothing but Docker."""

__version__ = "0.1.0"
