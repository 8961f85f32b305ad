"""
What schemathesis cannot read from openapi.yaml by itself: the schemas of event streams and of JSONL
bodies (x-sse-data, x-line), and ids that exist, which schemathesis.ts passes in RAMIFY_KNOWN_IDS as
JSON: the part of a path before an id, or the name of a field -> ids.
"""

import json
import os

import schemathesis

OWN_KEY = os.environ.get("RAMIFY_OWN_KEY")
KNOWN_IDS = json.loads(os.environ.get("RAMIFY_KNOWN_IDS", "{}"))
REFERENCE_TO_ERROR = {"$ref": "#/components/schemas/Error"}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    for item in raw_schema["paths"].values():
        for operation in item.values():
            for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
                if media_type == "application/x-ndjson":
                    # Lines are generated as objects; the example is text.
                    media["schema"] = {"type": "array", "items": media.get("x-line", {})}
                    media.pop("examples", None)
            for response in operation["responses"].values():
                for media_type, media in response.get("content", {}).items():
                    if "x-sse-data" in media:
                        media["schema"] = event_schema(media["x-sse-data"])
                    if media_type == "application/yaml":
                        # The contract says that it is text; schemathesis parses it.
                        media["schema"] = {"type": "object"}


def event_schema(data):
    """An event as schemathesis reads it, with data that is JSON text or ends an OpenAI stream."""
    content = {"anyOf": [data, REFERENCE_TO_ERROR]}
    json_text = {"contentMediaType": "application/json", "contentSchema": content}
    return {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"anyOf": [{"const": "[DONE]"}, {"type": "string", **json_text}]}},
    }


@schemathesis.serializer("application/x-ndjson")
def write_lines(context, value):
    if not isinstance(value, list):
        value = [value]
    return "\n".join(json.dumps(line) for line in value).encode()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Half of the ids that are sent exist, so that answers other than 404 are seen; they stay."""
    for values in (case.path_parameters, case.body):
        for name, value in values.items() if isinstance(values, dict) else ():
            ids = known_ids(case.operation.path, name)
            pick = sum(str(value).encode(errors="replace"))
            if value == OWN_KEY:
                # Revoked, it would end the test.
                values[name] = "key_none"
            elif ids and pick % 2 == 0 and case.method != "DELETE":
                values[name] = ids[pick // 2 % len(ids)]
    if isinstance(case.body, dict) and "input" in case.body and "messages" in case.body:
        # Only one of them is taken, which the schema does not say.
        del case.body["messages"]


def known_ids(path, name):
    """By the segment before the parameter; of a body by the field's name."""
    for part, ids in KNOWN_IDS.items():
        if f"{part}/{{{name}}}" in path or part == name:
            return ids
    return []
