"""Pictures of the committed dashboards, drawn by Grafana's own libraries over the recording: `python -m tests.dashboards.pictures FOLDER`.

Owns what is pictured and the run of Node and Chromium. Does not own the drawing (`page/`, `picture.mjs`) nor the judgement
(`test_pictures.py`). Needs DASHBOARD_MODULES, a folder with node_modules (`make dashboards` makes one), and Chromium.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image
from tests.dashboards import recording
from tests.dashboards.recording import Moment, Series

HERE = Path(__file__).parent
DASHBOARDS = HERE.parents[1] / "charts" / "asyncppo" / "files" / "dashboards"
LIMIT_SECONDS = 600.0
SOURCES = ("build.mjs", "picture.mjs", "page")


@dataclass(frozen=True)
class Picture:
    """One dashboard of one moment, and what it showed: panel → {kind, series, points, values: [{title, text, color}], noValue}."""

    dashboard: str
    moment: str
    file: Path
    errors: list[str]
    shown: dict[str, dict[str, Any]]


def take(folder: Path, moments: Mapping[str, Moment], series: list[Series], mode: str = "dark") -> list[Picture]:
    """Every dashboard of every moment, as FOLDER/DASHBOARD-MOMENT.png. RuntimeError says what is missing on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(file, name) for file in sorted(DASHBOARDS.glob("*.json")) for name in moments]
    with tempfile.TemporaryDirectory() as work, recording.prometheus(series, Path(work)) as url:
        request = {
            "prometheus": url,
            "chromium": _program("CHROMIUM", "chromium", "chromium-browser", "google-chrome"),
            "pictures": [_asked(file, name, moments[name], folder, mode) for file, name in wanted],
        }
        report = _draw(Path(work), request)
    return [
        Picture(file.stem, name, Path(seen["out"]), seen["errors"], seen["shown"])
        for (file, name), seen in zip(wanted, report, strict=True)
    ]


def _asked(file: Path, name: str, moment: Moment, folder: Path, mode: str) -> dict[str, Any]:
    return {
        "dashboard": json.loads(file.read_text()),
        "variables": {"namespace": moment.namespace, "job": moment.job},
        "from": _iso(moment.begin),
        "to": _iso(moment.end),
        "mode": mode,
        "title": f"a {name} job",
        "out": str(folder.resolve() / f"{file.stem}-{name}.png"),
    }


def _draw(work: Path, request: dict[str, Any]) -> list[dict[str, Any]]:
    modules = os.environ.get("DASHBOARD_MODULES", "")
    if not (Path(modules) / "node_modules").is_dir():
        raise RuntimeError(
            f"DASHBOARD_MODULES={modules!r} has no node_modules: `make dashboards` and `make test-dashboards` set it up"
        )
    node = _program("NODE", "node")
    (work / "node_modules").symlink_to((Path(modules) / "node_modules").resolve())
    for source in SOURCES:
        copy = shutil.copytree if (HERE / source).is_dir() else shutil.copy
        copy(HERE / source, work / source)
    (work / "request.json").write_text(json.dumps(request))
    for command in ([node, "build.mjs", "page.js"], [node, "picture.mjs", "page.js", "request.json"]):
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        if done.returncode:
            raise RuntimeError(f"{command[1]} failed ({done.returncode}): {done.stderr[-4000:]}")
    report: list[dict[str, Any]] = json.loads(done.stdout)
    return report


def _program(variable: str, *programs: str) -> str:
    for program in filter(None, (os.environ.get(variable), *programs)):
        if found := shutil.which(program):
            return found
    raise RuntimeError(f"{programs[0]} is not on PATH; install it or let {variable} name it")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def main(folder: str) -> None:
    """Takes them all and says what was wrong with any."""
    failed = False
    for picture in take(Path(folder), *recording.read()):
        # a repository's pictures are small: so many colours are enough for lines and letters
        with Image.open(picture.file) as drawn:
            drawn.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(picture.file, optimize=True)
        empty = [title for title, panel in picture.shown.items() if not panel["points"]]
        print(f"{picture.file.name}: {len(picture.shown)} panels", f"; no data: {', '.join(empty)}" if empty else "")
        for error in picture.errors:
            print(f"  {error}")
        failed |= bool(picture.errors)
    sys.exit(failed)


if __name__ == "__main__":
    main(sys.argv[1])
