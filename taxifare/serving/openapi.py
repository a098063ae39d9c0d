"""How the service describes itself: an OpenAPI document, with the city's limits, and a page made from it."""

import html
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from taxifare.serving.asking import LONGEST_ID, MOST_RIDES
from taxifare.serving.bundle import Manifest
from taxifare.serving.outcome_log import MOST_OUTCOMES
from taxifare.serving.zones import with_zones, zones_of
from taxifare.trips.targets import Target

_PROBLEM = "application/problem+json"

_REFERENCE = "#/components/schemas/"

_WHAT_IS_WRONG = {
    400: "Not JSON",
    401: "Without the token of this service, where it has one",
    404: "There is nothing here",
    405: "Another method is expected",
    408: "The request was not whole in time",
    413: "Larger than is answered",
    415: "Not application/json",
    422: "No ride that can be priced: each fault names field, expected, received",
    503: "No model, too many waiting, or about to end; come again after Retry-After",
}


def document(manifest: Manifest | None, target: Target) -> dict[str, Any]:
    """Returns the OpenAPI document of the service, with the limits of the model that is served, if any."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "taxifare",
            "version": version("taxifare"),
            "description": "Prices taxi rides before they begin, with the model that was approved for production.",
        },
        "paths": {
            "/predict": {"post": _post("The price of a ride", "Asked", "Priced")},
            "/predict/batch": {"post": _post("Prices of rides, all by one version", "AskedAll", "PricedAll")},
            "/invocations": {"post": _post("The same for clients of MLflow", "Invocation", "Predictions")},
            "/outcomes": {"post": _post("Tell what rides came to, all of it or none", "Outcomes", "Kept")},
            "/health/live": {"get": _get("Whether the process answers", {"type": "object"}, [])},
            "/health/ready": {"get": _get("Whether it prices rides", {"type": "object"}, [503])},
            "/ping": {"get": _get("The same for clients of MLflow", {"type": "object"}, [503])},
            "/model": {"get": _get("What is served, since when, by whom", {"type": "object"}, [401])},
            "/metrics": {"get": _get("Counters for Prometheus", {"type": "string"}, [401], "text/plain")},
            "/openapi.json": {"get": _get("This document", {"type": "object"}, [401])},
            "/docs": {"get": _get("A page of it", {"type": "string"}, [401], "text/html")},
        },
        "components": {
            "schemas": _schemas(_ride(manifest), target),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
    }


def _ride(manifest: Manifest | None) -> Mapping[str, Any]:
    if manifest is None:
        return {"type": "object", "properties": {}}
    schema = manifest.limits.schema()
    return with_zones(schema) if zones_of(manifest.city) else schema


def _schemas(ride: Mapping[str, Any], target: Target) -> dict[str, Any]:
    ride_id = {
        "type": ["string", "integer"],
        "minLength": 1,
        "maxLength": LONGEST_ID,
        "description": "What you call the ride",
    }
    truth = {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": target.most,
        "description": f"What the ride came to ({target.truth}), {target.unit}",
    }
    rides: dict[str, Any] = {"type": "array", "minItems": 1, "description": f"At most {MOST_RIDES:,}"}
    return {
        "Ride": ride,
        "Asked": _object({"ride_id": ride_id, "ride": _ref("Ride")}),
        # An invalid ride does not spoil the others: the answer has a problem of its own for it.
        "AskedAll": _object({"rides": rides | {"items": {"anyOf": [_ref("Asked"), {}]}}}),
        "Priced": _object(
            {
                "ride_id": {"type": ["string", "integer"]},
                "fare": {"type": "number", "description": "The prediction, in `unit`"},
                "upper": {"type": "number", "description": "The upper prediction: long and dear rides pull it up"},
                "corrected": {"type": "number", "description": "The prediction, corrected for its bias"},
                "quoted": {"type": "number", "description": "The fare as the meter would show it"},
                "unit": {"const": target.unit},
                "model_version": {"type": "string"},
                "sequence": {"type": ["integer", "null"], "description": "Of the promotion that is in force"},
                "warnings": {"type": "array", "items": {"type": "string"}},
            }
        ),
        "PricedAll": _object(
            {
                "model_version": {"type": "string"},
                "sequence": {"type": ["integer", "null"]},
                "answers": {"type": "array", "items": {"anyOf": [_ref("Priced"), _ref("Unpriced")]}},
            }
        ),
        "Unpriced": _object({"ride_id": {}, "problem": _ref("Problem")}),
        "Invocation": {
            "type": "object",
            "description": "MLflow's forms; exactly one of dataframe_split, dataframe_records, instances, inputs",
            "properties": {
                "dataframe_split": _object({"columns": {"type": "array", "items": {"type": "string"}}, "data": rides}),
                "dataframe_records": rides | {"items": _ref("Ride")},
                "instances": rides | {"items": _ref("Ride")},
                "inputs": {"type": ["array", "object"]},
                "params": _object({"corrected": {"type": "boolean"}}, required=()),
            },
            "oneOf": [{"required": [name]} for name in ("dataframe_split", "dataframe_records", "instances", "inputs")],
        },
        "Predictions": _object({"predictions": {"type": "array", "items": {"type": "number"}}}),
        "Outcomes": _object(
            {
                "outcomes": {
                    "type": "array",
                    "minItems": 1,
                    "description": f"At most {MOST_OUTCOMES:,}",
                    "items": _object({"ride_id": ride_id, "truth": truth, "unit": {"const": target.unit}}),
                }
            }
        ),
        "Kept": _object({"kept": {"type": "integer"}}),
        "Problem": _object(
            {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "errors": {
                    "type": "array",
                    "items": _object({name: {"type": "string"} for name in ("field", "expected", "received")}),
                },
            },
            required=("title", "status", "detail"),
        ),
    }


def _object(properties: Mapping[str, Any], required: tuple[str, ...] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
        "additionalProperties": False,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"{_REFERENCE}{name}"}


def _post(summary: str, asked: str, answered: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(asked)}}},
        "responses": _responses(_ref(answered), [400, 401, 408, 413, 415, 422, 503]),
    }


def _get(summary: str, schema: Mapping[str, Any], statuses: list[int], media_type: str = "application/json") -> Any:
    return {"summary": summary, "responses": _responses(schema, statuses, media_type)}


def _responses(schema: Mapping[str, Any], statuses: list[int], media_type: str = "application/json") -> dict[str, Any]:
    problems = {
        str(status): {"description": _WHAT_IS_WRONG[status], "content": {_PROBLEM: {"schema": _ref("Problem")}}}
        for status in (*statuses, 405)
    }
    return {"200": {"description": "The answer", "content": {media_type: {"schema": dict(schema)}}}} | problems


def page(described: Mapping[str, Any]) -> bytes:
    """Returns the document as a self-contained page."""
    rows = "".join(
        f"<tr><td><code>{method.upper()} {html.escape(path)}</code></td>"
        f"<td>{html.escape(operation['summary'])}</td></tr>"
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    )
    fields = "".join(
        f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(_limits_in_words(field))}</td>"
        f"<td>{html.escape(field.get('description', ''))}</td></tr>"
        for name, field in described["components"]["schemas"]["Ride"]["properties"].items()
    )
    statuses = "".join(
        f"<tr><td>{status}</td><td>{html.escape(meaning)}</td></tr>" for status, meaning in _WHAT_IS_WRONG.items()
    )
    return _PAGE.format(
        title=html.escape(described["info"]["title"]),
        description=html.escape(described["info"]["description"]),
        rows=rows,
        fields=fields,
        statuses=statuses,
    ).encode()


def _limits_in_words(field: Mapping[str, Any]) -> str:
    kinds = field.get("type", "")
    kind = kinds if isinstance(kinds, str) else " or ".join(kinds)
    if "minimum" in field:
        return f"{kind}, {field['minimum']} to {field['maximum']}"
    return kind


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}}
table{{border-collapse:collapse;margin:0 0 1.5rem}}td{{border-bottom:1px solid #ddd;padding:.3rem .8rem .3rem 0;
vertical-align:top}}code,pre{{background:#f4f4f4;padding:.1rem .3rem}}pre{{padding:.8rem;overflow:auto}}</style></head>
<body><h1>{title}</h1><p>{description}</p>
<table>{rows}</table>
<h2>A ride</h2><table>{fields}</table>
<h2>When it is not priced</h2><p>Answers are <code>application/problem+json</code> (RFC 9457).</p>
<table>{statuses}</table>
<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p></body></html>
"""
