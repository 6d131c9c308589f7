"""The bodies of requests. Unknown and read-only keys are ignored, as in the platform; all faults are reported."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from polylocal import clock
from polylocal.api.body_parsing import parse_json
from polylocal.errors import InvalidInput
from polylocal.git import revisions
from polylocal.polyaxonfile import SourceFile
from polylocal.polyaxonfile.models import MAX_NAME, SLUG
from polylocal.polyaxonfile.models import Tags as AnyTags
from polylocal.statuses import Status
from polylocal.text import non_finite, visible

# words that take the place of a name in URLs; the platform reserves these and their plurals
_RESERVED_WORDS = """
user admin experiment experiment_group project api polyaxon dashboard index log metric public version repo
cluster event login logout team doc static status job plugin tensorboard pipeline task monitor setting
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())


_MAX_INTEGER = 2**63 - 1  # the largest integer of a column
MAX_TAGS = 200
MAX_PARAMS = 1000  # names: each has a row of its own, for filters
MAX_WORD = 256  # characters
MAX_TEXT = 256 * 1024
MAX_README = 2 * 2**20
MAX_URL = 2000  # characters
MAX_JSON = 256 * 1024  # of an object, written as JSON
MAX_MEASURED = 1000  # values of one entry of metrics
MAX_FILES = 1000  # files that a polyaxonfile is merged from
MAX_IDS = 10_000  # experiments of a selection
_MAX_SHOWN = 100  # characters of a value in the message about it


def is_reserved(name: str) -> bool:
    """Whether a project of this name would take the place of a word in the API's paths."""
    return name.lower() in _RESERVED or name.lower().removesuffix("s") in _RESERVED


def _require(is_valid: Callable[[Any], bool], message: str) -> AfterValidator:
    """A check of a value that is not empty."""

    def check(value: Any) -> Any:
        if value and not is_valid(value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def _json_object(value: object) -> object:
    """Parse a text: all values of a form are texts."""
    if isinstance(value, str):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def _check_moment(moment: datetime) -> datetime:
    clock.stamp(moment)
    return moment


_NOT_RESERVED = _require(lambda name: not is_reserved(name), "The name is a reserved word or already taken.")
_SMALL = _require(
    lambda value: len(json.dumps(value)) <= MAX_JSON,
    f"Ensure this field has no more than {MAX_JSON} characters as JSON.",
)
_FEW = _require(lambda value: len(value) <= MAX_PARAMS, f"Ensure this field has no more than {MAX_PARAMS} names.")
_FINITE = AfterValidator(non_finite.null_non_finite)

Slug = Annotated[str, Field(pattern=SLUG, min_length=1, max_length=MAX_NAME), _NOT_RESERVED]
Text = Annotated[str, Field(max_length=MAX_TEXT)] | None
Readme = Annotated[str, Field(max_length=MAX_README)] | None
Word = Annotated[str, Field(max_length=MAX_WORD)] | None  # for a column that is searched
Moment = Annotated[datetime, AfterValidator(_check_moment)]
Tags = Annotated[AnyTags, Field(max_length=MAX_TAGS)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json_object), _FINITE, _SMALL]
Params = Annotated[dict[str, Any], BeforeValidator(_json_object), _FEW, _FINITE, _SMALL]
Id = Annotated[int, Field(ge=0, le=_MAX_INTEGER)]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Ids = Annotated[list[Id], Field(max_length=MAX_IDS)]
Charts = Annotated[list[dict[str, Any]] | dict[str, Any], _FINITE, _SMALL]
MetricName = Annotated[str, Field(max_length=MAX_WORD)]
_REPORTED = {"anyOf": [{"type": kind} for kind in ("number", "string", "null")]}  # see `non_finite.parse_reported`
Measured = Annotated[float, BeforeValidator(non_finite.parse_reported), WithJsonSchema(_REPORTED)]


class Body(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)

    def given(self) -> dict[str, Any]:
        """The values that the caller sent, without defaults."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class _Described(Body):
    name: Slug | None = None
    description: Text = None
    readme: Readme = None
    tags: Tags | None = None


class _WithFile(Body):
    config: dict[str, Any] | str | None = None
    content: dict[str, Any] | str | None = None

    @property
    def source(self) -> dict[str, Any] | str | None:
        return self.content if self.content is not None else self.config


class NewProject(_Described):
    name: Slug
    is_public: bool | None = None


class ChangedProject(_Described):
    is_public: bool | None = None
    merge: bool = False


class FileOfSource(Body):
    """A file that a polyaxonfile was merged from. `line`: its first line in the merged text, from 1."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_WORD)]
    line: Annotated[int, Field(ge=1, le=_MAX_INTEGER)]


Files = Annotated[list[FileOfSource], Field(max_length=MAX_FILES)]


class NewRunBody(_Described, _WithFile):
    """A new run. Clients send the polyaxonfile as `config` (0.2) or `content` (0.5), as an object or a text."""

    is_managed: bool | None = None
    in_cluster: bool | None = None
    backend: Word = None
    data_refs: JsonObject | None = None
    run_env: JsonObject | None = None
    build_job: Id | None = None
    ttl: Id | None = None
    priority: Priority | None = None
    params: Params | None = None
    declarations: Params | None = None
    framework: Word = None
    original_experiment: Id | None = None
    check_specification: bool | None = None
    experiment_group: Id | None = None
    files: Files = Field(default_factory=list)

    @property
    def source_field(self) -> str:
        return "content" if self.content is not None else "config"

    @property
    def source_files(self) -> list[SourceFile]:
        return [SourceFile(visible.one_line(file.name), file.line) for file in self.files]

    @property
    def managed(self) -> bool:
        return self.is_managed is not False and self.in_cluster is not False


class NewGroup(NewRunBody):
    """A new group. Without a polyaxonfile it is a selection of existing experiments."""

    experiment_ids: Ids | None = None


class ChangedSelection(Body):
    """A change of a selection. Without an `operation` the experiments replace all others."""

    operation: Literal["add", "remove"] | None = None
    experiment_ids: Ids


class StoppedGroup(Body):
    pending: bool = False


class StoppedNotebook(Body):
    commit: bool = True


class NewSearch(Body):
    query: JsonObject
    name: Slug | None = None
    meta: JsonObject | None = None


class NewChartView(Body):
    charts: Charts
    name: Word = None
    meta: JsonObject | None = None


class ChangedChartView(Body):
    charts: Charts | None = None
    name: Word = None
    meta: JsonObject | None = None


class Ci(Body):
    config: JsonObject | None = None


class ExternalRepo(Body):
    git_url: Annotated[str, Field(min_length=1, max_length=MAX_URL, pattern=r"^[^\x00-\x1f\x7f]+$")]
    is_public: bool | None = None


class ChangedRepo(Body):
    is_public: bool | None = None


class ChangedRun(_Described):
    data_refs: JsonObject | None = None
    run_env: JsonObject | None = None
    backend: Word = None
    dockerfile: Text = None
    node_scheduled: Word = None
    params: Params | None = None
    declarations: Params | None = None
    framework: Word = None
    merge: bool = False


class Cloning(_WithFile):
    """A restart, resume or copy. The polyaxonfile is merged over that of the original."""

    update_code: bool | None = None
    name: Slug | None = None
    description: Text = None
    tags: Tags | None = None
    ttl: Id | None = None
    priority: Priority | None = None
    secrets: Literal["mine"] | None = None  # the caller's own instead of those of the original's owner
    files: Files = Field(default_factory=list)


class NewStatus(Body):
    status: Status
    message: Annotated[str, Field(max_length=256)] | None = None
    traceback: Text = None
    details: JsonObject | None = None


class NewMetric(Body):
    """The measured values of one moment."""

    values: Annotated[dict[MetricName, Measured], BeforeValidator(_json_object), Field(max_length=MAX_MEASURED)]
    created_at: Moment | None = None


_NOT_A_HASH = "Not a commit: give its hash, 7 to 40 hexadecimal digits (64 of a SHA-256 repository)."
_NOT_A_URL = f"Not a git URL: one line of at most {MAX_URL} characters that does not begin with `-`."
_EMPTY_IS_NULL = AfterValidator(lambda text: text or None)


def _is_git_url(text: str) -> bool:
    return not text.startswith("-") and text.isprintable() and len(text) <= MAX_URL


Hash = Annotated[Text, _require(revisions.is_foreign_hash, _NOT_A_HASH), _EMPTY_IS_NULL]


class NewCodeReference(Body):
    branch: Annotated[Text, _require(revisions.is_ref, "Not a valid name of a branch."), _EMPTY_IS_NULL] = None
    commit: Hash = None
    head: Hash = None
    is_dirty: bool | None = None
    git_url: Annotated[Text, _require(_is_git_url, _NOT_A_URL), _EMPTY_IS_NULL] = None


class Login(Body):
    username: Annotated[str, Field(min_length=1, max_length=256)]
    password: Annotated[str, Field(min_length=1, max_length=4096)]
    login: bool | None = None


class Collection(Body):
    budget_gib: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class NewSession(Body):
    token: Annotated[str, Field(max_length=MAX_WORD)]
    next: str = ""


class OneOrigin(Body):
    """The page to show on the API's own origin."""

    next: str = ""


AnyBody = TypeVar("AnyBody", bound=Body)


def read(model: type[AnyBody], data: object) -> AnyBody:
    """Check a body. Raises InvalidInput: `{field: [message, …]}` with all faults."""
    if not isinstance(data, Mapping):
        message = f"Invalid data. Expected a dictionary, but got {type(data).__name__}."
        raise InvalidInput({"non_field_errors": [message]})
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        messages = defaultdict[str, list[str]](list)
        for item in error.errors(include_url=False):
            field = str(item["loc"][0]) if item["loc"] else "non_field_errors"
            text = _message(item["type"], item["msg"], item.get("ctx") or {}, item["input"])
            if text not in messages[field]:
                messages[field].append(text)
        raise InvalidInput(messages) from error


_CHOICES = ("enum", "literal_error")
_MESSAGES = {
    "missing": "This field is required.",
    "string_type": "Not a valid string.",
    "bool_parsing": "Must be a valid boolean.",
    "bool_type": "Must be a valid boolean.",
    "int_parsing": "A valid integer is required.",
    "int_type": "A valid integer is required.",
    "int_from_float": "A valid integer is required.",
    "string_pattern_mismatch": "Enter a valid 'slug' consisting of letters, numbers, underscores or hyphens.",
    "string_too_short": "This field may not be blank.",
}


def _message(code: str, text: str, context: Mapping[str, Any], value: object) -> str:
    """The message of the platform's framework (Django REST framework) for the same fault."""
    if value is None and (code.endswith("_type") or code in _CHOICES):
        return "This field may not be null."
    if code == "string_too_long":
        return f"Ensure this field has no more than {context['max_length']} characters."
    if code in _CHOICES:
        return f'"{str(value)[:_MAX_SHOWN]}" is not a valid choice.'
    if code == "list_type":
        return f'Expected a list of items but got type "{type(value).__name__}".'
    if code == "too_long":
        return f"Ensure this field has no more than {context['max_length']} elements."
    return _MESSAGES.get(code, text.removeprefix("Value error, "))
