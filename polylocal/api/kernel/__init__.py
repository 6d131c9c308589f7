"""The request kernel under every HTTP API: routing, admission, body limits, threads, streamed responses, errors."""

from polylocal.api.kernel.call import BaseCall, BaseEndpoint, Threads
from polylocal.api.kernel.table import Failure, Table, application

__all__ = ["BaseCall", "BaseEndpoint", "Failure", "Table", "Threads", "application"]
