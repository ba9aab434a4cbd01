"""Reads a dashboard into Grafana's own types and writes it again: what they do not know is lost on the way."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# Grafana's editor writes it for itself: the query of a variable, as text.
OF_THE_EDITOR = "/definition"


def lost(before, after, path=""):
    """Places whose value is another one, or none, afterwards."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(value, after[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{path}/{index}")
    elif before != after:
        yield path


register_default_plugins()
with open(sys.argv[1], encoding="utf-8") as file:
    dashboard = json.load(file)
read = Dashboard.from_json(dashboard)
written = json.loads(JSONEncoder(sort_keys=True).encode(read))
strange = [place for place in lost(dashboard, written) if not place.endswith(OF_THE_EDITOR)]
if strange:
    sys.exit("Grafana does not know: " + ", ".join(strange))
print(len(read.panels))
