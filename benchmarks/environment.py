"""What a benchmark ran on, stored beside its figures."""

from importlib import metadata
import json
import os
import pathlib
import platform
import time
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"


def describe() -> dict[str, Any]:
    """Processor, cores, Python and package versions, and the hour."""
    packages = ("tensorflow", "numpy", "jax", "dm-sonnet")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def save(name: str, figures: dict[str, Any]) -> pathlib.Path:
    """Writes figures and environment to benchmarks/results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"figures": figures, "environment": describe()}, indent=2) + "\n")
    return path


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
