"""The ABF API for package builds: the "Build lists" document, and the further calls that its clients need."""

from polylocal.api.abf.table import ENDPOINTS, application, serves

__all__ = ["ENDPOINTS", "application", "serves"]
