"""How soon the programs answer, beside Python that imports NumPy and absl, on which all of them stand.

    python -m benchmarks.benchmark_startup

Starts `--help` of every program, and `list_zoo` on a zoo of 400 packed runs, several times in turn with the reference,
and prints the median seconds of each and the ratio to the reference's. A healthy run shows all under one second.
Writes benchmarks/results/startup.json.
"""

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags
import numpy as np

from benchmarks import environment
from zoo import aux_arrays, layout, run_table_update

_REPEATS = flags.DEFINE_integer("repeats", 7, "Starts of each command.")
_PROGRAMS = (
    *("list_zoo", "compute_scores", "render_report", "train_runs", "evaluate_run"),
    *("zoo_stream", "zoo_fetch", "zoo_download", "zoo_index", "zoo_verify", "zoo_pack"),
)
_REFERENCE = "python with numpy and absl"


def main(argv: list[str]) -> None:
    """Times all commands in turn and prints medians and ratios."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        _write_zoo(folder)
        commands = {_REFERENCE: ["-c", "import numpy, absl.app"]}
        commands |= {f"{program} --help": ["-m", f"scripts.{program}", "--help"] for program in _PROGRAMS}
        commands["list_zoo, 400 runs"] = ["-m", "scripts.list_zoo", f"--zoo={folder}"]
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(_REPEATS.value):
            for name, arguments in commands.items():
                seconds[name].append(_time(arguments))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<30} {median:6.2f} s   {median / medians[_REFERENCE]:5.2f} times the reference")
    print(environment.save("startup", {"median_seconds": medians, "repeats": _REPEATS.value}))


def _time(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def _write_zoo(folder: str) -> None:
    generator = np.random.default_rng(0)
    for run_id in range(400):
        run = layout.Run(pathlib.Path(folder), "e", 0.7, run_id)
        mask = generator.permutation(1438) < round(0.7 * 1438)
        correctness = generator.random(1438) < 0.9, generator.random(359) < 0.9
        aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(mask, *correctness))
    run_table_update.update(folder, "e")


if __name__ == "__main__":
    app.run(main)
