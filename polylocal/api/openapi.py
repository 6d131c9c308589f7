"""The OpenAPI document, generated from the table of endpoints and the models. Pure."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from polylocal import __version__
from polylocal.api.endpoint import Access, Endpoint, Query

_REFERENCE = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")

Json = dict[str, Any]


def document(endpoints: Iterable[Endpoint]) -> Json:
    schemas: Json = {"Detail": {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}}
    paths: Json = {}
    for endpoint in endpoints:
        path = _PARAMETER.sub(r"{\1}", endpoint.path) + ("/" if endpoint.path.startswith("/api/") else "")
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "polylocal", "version": __version__, "summary": "The Polyaxon v0 REST API on one machine"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "Authorization"}},
        },
    }


def _operation(endpoint: Endpoint, schemas: Json) -> Json:
    operation: Json = {
        "summary": endpoint.about,
        "operationId": _id(endpoint),
        "parameters": [
            *map(_path_parameter, _PARAMETER.findall(endpoint.path)),
            *map(_query_parameter, endpoint.query),
        ],
        "responses": _responses(endpoint, schemas),
        "security": [] if endpoint.access is Access.ANYONE else [{"token": []}],
    }
    if endpoint.is_upload:
        part = {"type": "object", "properties": {"repo": {"type": "string", "format": "binary"}}, "required": ["repo"]}
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": part}}}
    elif endpoint.body:
        content = {"application/json": {"schema": _schema(endpoint.body, schemas, "validation")}}
        operation["requestBody"] = {"content": content}
    return operation


def _responses(endpoint: Endpoint, schemas: Json) -> Json:
    good: Json = {"description": "Done"}
    if endpoint.answer is not None:
        answer = _schema(endpoint.answer, schemas, "serialization")
        good["content"] = {endpoint.media: {"schema": _page(answer) if endpoint.many else answer}}
    elif endpoint.media != "application/json":
        good["content"] = {endpoint.media: {}}
    detail = {"application/json": {"schema": {"$ref": "#/components/schemas/Detail"}}}
    responses = {str(endpoint.status): good}
    if endpoint.body or endpoint.query or endpoint.is_upload or endpoint.method == "POST":
        responses["400"] = {"description": "All problems of the request", "content": {"application/json": {}}}
    if endpoint.access is not Access.ANYONE:
        responses["401"] = {"description": "Not authenticated", "content": detail}
        responses["403"] = {"description": "Not allowed", "content": detail}
    if endpoint.refusal:
        responses["401"] = {"description": "Not authenticated", "content": {endpoint.refusal: {}}}
    if "{" in endpoint.path:
        responses["404"] = {"description": "Not found", "content": {"application/json": {}}}
    return responses


def _page(item: Json) -> Json:
    link = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    results = {"type": "array", "items": item}
    properties = {"count": {"type": "integer"}, "next": link, "previous": link, "results": results}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _schema(model: Any, schemas: Json, mode: Any) -> Json:
    found = TypeAdapter(model).json_schema(ref_template=_REFERENCE, mode=mode)
    schemas.update(found.pop("$defs", {}))
    name = getattr(model, "__name__", "")
    if not name or name == "dict":
        return found
    schemas[name] = found
    return {"$ref": _REFERENCE.format(model=name)}


def _path_parameter(found: tuple[str, str]) -> Json:
    name, convertor = found
    schema = {"type": "integer", "minimum": 0} if convertor == "id" else {"type": "string", "pattern": r"^[-\w]+$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameter(query: Query) -> Json:
    return {"name": query.name, "in": "query", "description": query.about, "schema": {"type": "string"}}


def _id(endpoint: Endpoint) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", " ", _PARAMETER.sub(r"by \1", endpoint.path)).split()
    return "_".join([endpoint.method.lower(), *words])
