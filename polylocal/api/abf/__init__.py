"""The ABF API for package builds: the "Build lists" document, and what its clients need around it."""

from polylocal.api.abf.table import ENDPOINTS, application, serves

__all__ = ["ENDPOINTS", "application", "serves"]
