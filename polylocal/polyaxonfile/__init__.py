"""Polyaxonfiles, version 1: `parse()` turns what a person wrote into a Specification, or says all that is wrong."""

from polylocal.polyaxonfile.hptuning import GroupFile, HPTuning, Matrix
from polylocal.polyaxonfile.models import Build, Environment, ExperimentFile, Resources
from polylocal.polyaxonfile.reader import merge, read
from polylocal.polyaxonfile.specification import Specification, of_config, of_member, parse

__all__ = [
    "Build",
    "Environment",
    "ExperimentFile",
    "GroupFile",
    "HPTuning",
    "Matrix",
    "Resources",
    "Specification",
    "merge",
    "of_config",
    "of_member",
    "parse",
    "read",
]
