"""The programs of input-Jacobian statistics as users start them: shards, kills, summaries, pictures, wrong flags."""

import csv
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from scripts import old_command_lines
from scripts.jacobian_stats import stats_tables
from tests.scripts.jacobian_stats import networks

_ROOT = pathlib.Path(__file__).parents[3]


def command(program, *options):
    return [sys.executable, "-m", f"scripts.{program}", *options]


def environment(**variables):
    kept = {name: value for name, value in os.environ.items() if name not in old_command_lines.VARIABLES}
    return kept | variables


def run(program, *options, **variables):
    return subprocess.run(
        command(program, *map(str, options)),
        capture_output=True,
        text=True,
        cwd=_ROOT,
        check=False,
        env=environment(**variables),
    )


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """Two networks that differ in their seeds, with shards of their statistics."""
    folder = tmp_path_factory.mktemp("nets")
    homes = [networks.model_run(folder, seed=seed) for seed in (0, 1)]
    done = run(
        "compute_jacobian_stats",
        f"--run={folder}",
        "--metric=jacobian",
        "--checkpoint=all",
        "--num-shards=2",
        "--no-progress",
        SAVE_DIR=str(folder / "elsewhere"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("shard") == 12
    return folder, homes, done


def test_what_is_there_is_not_done_again(nets):
    folder, homes, _ = nets
    # Beside the networks, whatever the environment says: they have their place.
    assert all(len(list((home / "jacobian_stats").glob("*.parquet"))) == 6 for home in homes)
    again = run(
        "compute_jacobian_stats", f"--run={homes[0]}", "--metric=jacobian", "--checkpoint=all", "--num_shards=2"
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.endswith("up to date, nothing to do\n")
    assert not (folder / "elsewhere").exists()


def test_merged_shards_are_summed_up_and_drawn(nets, tmp_path):
    folder, homes, _ = nets
    table = tmp_path / "all.csv"
    merged = run("merge_jacobian_stats", f"--input={folder}", f"--outdir={tmp_path / 'm'}", f"--output={table}")
    # Two networks cannot share a folder of tables.
    assert merged.returncode == 1
    assert "choose another --outdir" in merged.stderr
    merged = run("merge_jacobian_stats", f"--input={folder}", f"--output={table}")
    assert merged.returncode == 0, merged.stderr
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 40
    assert list(rows[0]) == [
        "model",
        "data",
        "setting",
        "seed",
        "split",
        "id",
        "label",
        "clean_label",
        "epoch",
        "jacobian",
    ]
    again = run("merge_jacobian_stats", f"--input={homes[0]}", "--delete_shards")
    assert again.stdout.count("(was there)") == 3
    names = {path.name for path in (homes[0] / "jacobian_stats").iterdir()}
    assert len(names) == 1 + 2 * 3
    assert not any("of-2" in name for name in names)

    done = run("aggregate_jacobian_stats", f"--input={folder}", f"--output={tmp_path / 'sum'}")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "sum_seeds.csv", newline="") as file:
        found = {(row["epoch"], row["subset"], row["statistic"]): row for row in csv.DictReader(file)}
    values = [
        max(float(row["jacobian"]) for row in rows if (row["seed"], row["epoch"]) == (seed, "5")) for seed in "01"
    ]
    assert float(found["5", "all", "maximum"]["mean"]) == pytest.approx(np.mean(values))
    assert found["5", "changed", "mean"]["num_seeds"] == "2"

    drawn = run(
        "plot_jacobian_stats",
        f"--input={folder}",
        f"--output={tmp_path / 'p.png'}",
        "--against=epoch",
        "--column=jacobian",
    )
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "p.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["statistic"]) == pytest.approx(np.mean(values))
    assert float(last["test_error"]) == pytest.approx(0.35)


@pytest.mark.parametrize(
    ("program", "options", "variables", "status", "message"),
    [
        ("compute_jacobian_stats", ["--run=HOME", "--bigmem"], {}, 2, "use --memory_limit_mb"),
        ("compute_jacobian_stats", ["--run=/no/where"], {}, 1, "--run=/no/where: there is no such folder"),
        ("compute_jacobian_stats", [], {}, 2, "which model"),
        ("compute_jacobian_stats", ["--run=HOME"], {"WORKERS": "many"}, 2, "WORKERS=many"),
        ("compute_jacobian_stats", ["--run=HOME", "--workers=3"], {}, 2, "--workers=3"),
        ("compute_jacobian_stats", ["--run=HOME", "--metric=norm"], {}, 2, "--metric=norm: 'norm' is none of jacobian"),
        ("compute_jacobian_stats", ["--run=HOME", "--shard=1/2", "--num_shards=2"], {}, 2, "beside --num_shards"),
        ("compute_jacobian_stats", ["--run=HOME", "--num_shards=0"], {}, 2, "--num_shards=0"),
        ("compute_jacobian_stats", ["--run=HOME", "--outdir=/tmp/x", "--name=y"], {}, 2, "--outdir is in place of"),
        ("compute_jacobian_stats", ["--run=ROOT", "--outdir=/tmp/x"], {}, 2, "there are 2 runs"),
        ("compute_jacobian_stats", ["--run=HOME", "--workers=0"], {}, 2, "--workers=0"),
        ("merge_jacobian_stats", ["--input=HOME", "--output=x.txt"], {}, 2, "--output=x.txt"),
        ("merge_jacobian_stats", [], {}, 2, "--input is required"),
        (
            "aggregate_jacobian_stats",
            ["--input=HOME", "--output=OUT", "--column=x"],
            {},
            2,
            "--column=x: there is none",
        ),
        ("plot_jacobian_stats", ["--input=HOME", "--output=OUT.gif"], {}, 2, ".gif: expected a file .png"),
        ("plot_jacobian_stats", ["--input=HOME", "--output=OUT.png", "--zero_error=2"], {}, 2, "--zero_error=2"),
        ("plot_jacobian_stats", ["--input=HOME", "--output=OUT.png", "--column=jacobian"], {}, 2, "--against=width"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(nets, tmp_path, program, options, variables, status, message):
    places = {"HOME": nets[1][0], "ROOT": nets[0], "OUT": tmp_path / "out"}
    for name, place in places.items():
        options = [option.replace(f"={name}", f"={place}") for option in options]
    done = run(program, *options, **variables)
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


def test_another_name_takes_results_elsewhere_and_an_unfinished_training_must_be_asked_for(tmp_path):
    home = networks.model_run(tmp_path, outcome=None)
    options = ["compute_jacobian_stats", f"--run={tmp_path}", "--noprogress", "--num_examples=5"]
    refused = run(*options)
    assert (refused.returncode, "has no result.json" in refused.stderr) == (1, True), refused.stderr
    assert not (home / "jacobian_stats").exists()
    # A name of the environment is not asked for here.
    done = run(*options, "--unfinished", NAME="elsewhere")
    assert done.returncode == 0, done.stderr
    refused = run(*options, "--unfinished", "--metric=jacobian")
    assert (refused.returncode, "choose another --name" in refused.stderr) == (1, True), refused.stderr
    done = run(*options, "--unfinished", "--metric=jacobian", "--name=other")
    assert done.returncode == 0, done.stderr
    found = {path.name: len(list(path.glob("*.parquet"))) for path in home.glob("jacobian_stats*")}
    assert found == {"jacobian_stats": 1, "jacobian_stats-other": 1}


@pytest.mark.parametrize(
    "program",
    [
        "compute_jacobian_stats",
        "merge_jacobian_stats",
        "aggregate_jacobian_stats",
        "plot_jacobian_stats",
        "plot_sensitivity",
    ],
)
def test_programs_answer_before_tensorflow_is_imported(program):
    code = f"import sys; import scripts.{program}; sys.exit('tensorflow' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=_ROOT, check=False, env=environment()).returncode == 0


@pytest.mark.slow
def test_a_kill_at_any_moment_changes_no_value(nets, tmp_path):
    options = [f"--run={nets[1][1]}", "--metric=jacobian", "--strategy=shift", "--checkpoint=all", "--noprogress"]
    whole = run("compute_jacobian_stats", *options, f"--outdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    for wait in (4.0, 5.0, 6.0, 7.0):
        process = subprocess.Popen(
            command("compute_jacobian_stats", *options, f"--outdir={tmp_path / 'cut'}"),
            cwd=_ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = run("compute_jacobian_stats", *options, f"--outdir={tmp_path / 'cut'}")
    assert done.returncode == 0, done.stderr
    found = [
        [stats_tables.whole(group) for group in stats_tables.grouped(stats_tables.find([str(tmp_path / name)]))]
        for name in ("whole", "cut")
    ]
    for first, second in zip(*found, strict=True):
        assert first.table == second.table
        for name, values in first.arrays.items():
            np.testing.assert_allclose(second.arrays[name], values, rtol=1e-6)
    leftovers = [path for path in (tmp_path / "cut").iterdir() if path.name.startswith(".")]
    assert not leftovers
