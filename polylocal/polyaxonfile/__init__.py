"""Polyaxonfiles, version 1: `parse()` turns what a person wrote into a Specification, or says all that is wrong."""

from polylocal.polyaxonfile.group_resources import asked
from polylocal.polyaxonfile.hptuning import EarlyStopping, GroupFile, HPTuning, Hyperband, Matrix
from polylocal.polyaxonfile.hptuning import Metric as SearchMetric
from polylocal.polyaxonfile.models import Build, Environment, ExperimentFile, Resources, is_reserved_label
from polylocal.polyaxonfile.reader import merge, read, value
from polylocal.polyaxonfile.resources import Capacity
from polylocal.polyaxonfile.specification import (
    Source,
    SourceFile,
    Specification,
    of_config,
    of_member,
    parse,
    words_of_member,
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
    "asked",
    "is_reserved_label",
    "merge",
    "of_config",
    "of_member",
    "parse",
    "read",
    "value",
    "words_of_member",
]
