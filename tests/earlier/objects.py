"""The recorded jobs of earlier operators, as new ones of any name, namespace and uid."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

Object = dict[str, Any]

HERE = Path(__file__).parent
VERSIONS = sorted(folder.name for folder in HERE.iterdir() if (folder / "objects.json").is_file())


def recorded(version: str) -> tuple[Object, list[Object]]:
    """The job as the API server had it, and its objects in the order in which they were made."""
    content: Object = json.loads((HERE / version / "objects.json").read_text())
    return content["job"], content["objects"]


def moved(manifest: Object, namespace: str, uid: str) -> Object:
    """The object as that operator would have made it for a job with this uid in this namespace."""
    old = recorded_identity()
    text = json.dumps(deepcopy(manifest)).replace(old["uid"], uid)
    found: Object = json.loads(
        text.replace(f'\\"namespace\\": \\"{old["namespace"]}\\"', f'\\"namespace\\": \\"{namespace}\\"')
    )
    found["metadata"]["namespace"] = namespace
    return found


def recorded_identity() -> Object:
    """Metadata of the recorded jobs: all are of one name, namespace and uid."""
    metadata: Object = recorded(VERSIONS[0])[0]["metadata"]
    return metadata
