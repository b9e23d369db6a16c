"""A recording of real series, as a file of the repository, and a Prometheus that holds it.

Owns the file's format: gzip of JSON lines, a head and then one series a line, `{"labels": {}, "samples": [[seconds, "value"], …]}`.
Does not own where the series come from (`tests/e2e/record_dashboards.py`) nor what is drawn of them (`pictures.py`).
"""

import gzip
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "recording.jsonl.gz"
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Moment:
    """One job at one time: what a picture shows. begin and end in seconds since the epoch."""

    namespace: str
    job: str
    begin: float
    end: float


@dataclass(frozen=True)
class Series:
    """Labels, `__name__` among them, and samples: (seconds since the epoch, value as Prometheus writes it)."""

    labels: dict[str, str]
    samples: list[tuple[float, str]]


def write(moments: dict[str, Moment], series: Iterable[Series], file: Path = FILE) -> None:
    """The recording. Equal content gives equal bytes."""
    lines = [json.dumps({"moments": {name: asdict(moment) for name, moment in moments.items()}})]
    lines += sorted(json.dumps(asdict(one), sort_keys=True) for one in series)
    file.write_bytes(gzip.compress("\n".join(lines).encode() + b"\n", mtime=0))


def read(file: Path = FILE) -> tuple[dict[str, Moment], list[Series]]:
    """What `write` wrote."""
    head, *lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    moments = {name: Moment(**moment) for name, moment in json.loads(head)["moments"].items()}
    return moments, [Series(**json.loads(line)) for line in lines]


def open_metrics(series: Iterable[Series]) -> Iterator[str]:
    """The series in OpenMetrics text, which `promtool tsdb create-blocks-from openmetrics` reads; types are left open."""
    for one in sorted(series, key=lambda one: one.labels["__name__"]):
        pairs = ",".join(f"{key}={json.dumps(value)}" for key, value in one.labels.items() if key != "__name__")
        for at, value in one.samples:
            yield f"{one.labels['__name__']}{{{pairs}}} {value} {at}\n"
    yield "# EOF\n"


@contextmanager
def prometheus(series: Iterable[Series], folder: Path) -> Iterator[str]:
    """A Prometheus with these series and nothing to scrape; its URL. RuntimeError when it does not start."""
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is not on PATH (Debian: apt-get install prometheus)")
    text, data = folder / "recording.om", folder / "data"
    with text.open("w") as out:
        out.writelines(open_metrics(series))
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(data)],
        check=True,
        capture_output=True,
        text=True,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "prometheus.yml"
    config.write_text("scrape_configs: []\n")
    arguments = [
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", *arguments], stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "1"}
        )
    try:
        _until_ready(f"http://{address}/-/ready", folder / "prometheus.log")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def names(series: Iterable[Series]) -> set[str]:
    """The metrics' names."""
    return {one.labels["__name__"] for one in series}


def _until_ready(url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    error: Any = None
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError) as caught:
            error = caught
            time.sleep(0.1)
    raise RuntimeError(f"Prometheus is not ready after {READY_SECONDS:g} s ({error}):\n{log.read_text()[-2000:]}")
