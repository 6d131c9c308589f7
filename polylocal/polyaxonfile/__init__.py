"""Polyaxonfiles, version 1: `parse()` returns a Specification, or raises an error with all problems of the file."""

from polylocal.polyaxonfile.group_resources import requested_resources
from polylocal.polyaxonfile.hptuning import EarlyStopping, GroupFile, HPTuning, Hyperband, Matrix
from polylocal.polyaxonfile.hptuning import Metric as SearchMetric
from polylocal.polyaxonfile.models import Build, Environment, ExperimentFile, Resources, is_reserved_label
from polylocal.polyaxonfile.reader import merge, read, value
from polylocal.polyaxonfile.resources import Capacity
from polylocal.polyaxonfile.specification import (
    Source,
    SourceFile,
    Specification,
    metadata_of_member,
    of_member,
    parse,
)

__all__ = [
    "Build",
    "Capacity",
    "Environment",
    "EarlyStopping",
    "ExperimentFile",
    "GroupFile",
    "HPTuning",
    "Hyperband",
    "Matrix",
    "Resources",
    "SearchMetric",
    "Source",
    "SourceFile",
    "Specification",
    "is_reserved_label",
    "merge",
    "of_member",
    "parse",
    "read",
    "requested_resources",
    "value",
    "metadata_of_member",
]
