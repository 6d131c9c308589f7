"""Generates parts of the documentation from the code. Called by cog."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import tomllib
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

import polylocal
from polylocal.api import abf, proxy, streams
from polylocal.api import app as api
from polylocal.cli.commands import app
from polylocal.packages import statuses as packages
from polylocal.polyaxonfile import GroupFile, HPTuning, Matrix
from polylocal.polyaxonfile.models import WITHOUT_EFFECT, Build, Environment, ExperimentFile, Header, JobFile
from polylocal.settings import Settings
from polylocal.statuses import DONE, TRANSITIONS, Status

_WIDTH = 60  # of the picture

os.environ["TERMINAL_WIDTH"] = "100"
os.environ["NO_COLOR"] = "1"


def routes() -> str:
    """Every route, with its access rule and response."""
    rows = ["| method | path | | access | response | supported |", "|---|---|---|---|---|---|"]
    for endpoint in [*api.ENDPOINTS, *streams.ENDPOINTS, *proxy.SCOPES]:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", endpoint.path)
        answer = getattr(endpoint.answer, "__name__", "") if endpoint.answer else ""
        answer = "object" if answer == "dict" else answer
        if endpoint.method == "WS":
            answer = "frames"
        supported = "no: refused, with the reason" if endpoint.about.startswith("Refused") else "yes"
        shape = f"page of `{answer}`" if endpoint.many else f"`{answer}`" if answer else _media(endpoint.media)
        cells = (
            endpoint.method,
            f"`{path}/`",
            endpoint.about,
            endpoint.access,
            f"{endpoint.status} {shape}".strip(),
            supported,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def query_parameters() -> str:
    found: dict[str, str] = {}
    for endpoint in api.ENDPOINTS:
        for query in endpoint.query:
            found.setdefault(query.name, query.about)
    return "\n".join(["| parameter | |", "|---|---|", *(f"| `{name}` | {about} |" for name, about in found.items())])


def settings() -> str:
    rows = ["| setting | environment | default | |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True) if name != "node" else "this machine's name"
        shown = "" if default in (None, "", {}) else f"`{default}`"
        rows.append(f"| `{name}` | `POLYLOCAL_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows)


def transitions() -> str:
    rows = ["| to | from |", "|---|---|"]
    for target, sources in TRANSITIONS.items():
        words = "anything else that is not done" if sources >= set(Status) - DONE - {target} else ""
        rows.append(f"| {target} | {words or ', '.join(s for s in Status if s in sources) or 'nothing yet'} |")
    return "\n".join(rows)


def build_statuses() -> str:
    """The codes of a build list."""
    rows = ["| `status` | |", "|---|---|"]
    rows += [f"| {int(code)} | {words} |" for code, words in sorted(packages.WORDS.items())]
    return "\n".join(rows)


def build_transitions() -> str:
    rows = ["| from | by | to |", "|---|---|---|"]
    for step in packages.TRANSITIONS:
        rows.append(f"| {', '.join(str(int(s)) for s in step.sources)} | {step.by} | {int(step.target)} |")
    return "\n".join(rows)


def abf_routes() -> str:
    rows = ["| method | path | | access |", "|---|---|---|---|"]
    for endpoint in abf.ENDPOINTS:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", endpoint.path)
        shown = f"`{path}.json`" if path.startswith("/api/") else f"`{path}`"
        rows.append(f"| {endpoint.method} | {shown} | {endpoint.about} | {endpoint.right} |")
    return "\n".join(rows)


def without_effect() -> str:
    return "\n".join(f"- `{path}`" for path in WITHOUT_EFFECT)


def sections() -> str:
    """The keys of each section, from the models."""
    named = {
        "top level of a job": JobFile,
        "of an experiment": ExperimentFile,
        "of a group": GroupFile,
        "hptuning": HPTuning,
        "one entry of hptuning.matrix": Matrix,
        "build": Build,
        "environment": Environment,
    }
    rows = ["| section | keys |", "|---|---|"]
    for title, model in named.items():
        keys = [name for name in model.model_fields if name not in Header.model_fields or model is not Build]
        rows.append(f"| {title} | {', '.join(f'`{key}`' for key in keys)} |")
    return "\n".join(rows)


def commands() -> str:
    """The command line's own help."""
    command = typer.main.get_command(app)
    context = command.make_context("polylocal", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="polylocal", title="Commands")
    text = re.sub(r"^(#+) ", r"#\1 ", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def picture() -> str:
    """The packages from top to bottom, from the import contract in pyproject.toml."""
    contracts = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["name"] == "layers point down"]
    rows = [[name.strip().removeprefix("polylocal.") for name in layer.split("|")] for layer in layers]
    lines = ["```text", f"┌{'─' * _WIDTH}┐"]
    for above, row in zip([[], *rows], rows, strict=False):
        if above:
            lines.append(f"├{'─' * _WIDTH}┤")
        lines.append(f"│{'   '.join(row):^{_WIDTH}}│")
    return "\n".join([*lines, f"└{'─' * _WIDTH}┘", "```"])


def rooms() -> str:
    """Every package, with the first line of its docstring."""
    rows = ["| room | |", "|---|---|"]
    for name, about in _modules():
        if (Path("polylocal") / name.replace(".", "/")).is_dir() or "." not in name:
            rows.append(f"| `{name}` | {about} |")
    return "\n".join(rows)


def modules() -> str:
    """Every module, with the first line of its docstring."""
    return "\n".join(["| module | |", "|---|---|", *(f"| `{name}` | {about} |" for name, about in _modules())])


def _modules() -> list[tuple[str, str]]:
    found = []
    for module in pkgutil.walk_packages(polylocal.__path__, "polylocal."):
        if not module.name.endswith("__main__"):
            about = (importlib.import_module(module.name).__doc__ or "").strip().splitlines()[0]
            found.append((module.name.removeprefix("polylocal."), about))
    return sorted(found)


def _media(media: str) -> str:
    return "" if media == "application/json" else f"`{media.partition(';')[0]}`"
