"""How quick a report of many rows is in a browser, beside a page that writes every row anew, and how large it is.

    python -m benchmarks.benchmark_report

simulates 600 runs on --num_train and 10000 test examples of 32 by 32 pixels, scores them, renders a report with
--num_train rows in either table, and opens it in headless chromium. It prints milliseconds, each with layout done:
until the page is loaded, for every column sorted by, for every key in a filter, for panels; and for the plain way,
which writes all rows of the table of examples into the page at each key. A healthy run shows under 1000 until loaded
and under 100 for a key.
Writes benchmarks/results/report.json. Takes two minutes.
"""

import html
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
from typing import Any

from absl import app, flags
import numpy as np

from benchmarks import environment
from heldout.datasets import dataset as dataset_lib
from heldout.report import dataset_view, page, selection
from heldout.scoring import reliability_files, score_config, score_files
from zoo import layout, run_table

_NUM_TRAIN = flags.DEFINE_integer(
    "num_train", 100_000, "Training examples, and rows of either table.", lower_bound=1000
)
_NUM_RUNS = flags.DEFINE_integer("num_runs", 600, "Simulated runs.", lower_bound=10)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Starts of the browser.", lower_bound=1)
_NUM_TEST = 10_000
_EXPERIMENT = "simulated"

_SCRIPT = """
const noted = { load: performance.now() };
const payload = JSON.parse(document.getElementById('payload').textContent), height = () => document.body.offsetHeight;
const timed = (action) => {
  height();
  const start = performance.now();
  action();
  height();
  return performance.now() - start;
};
const enter = (input, text) => timed(() => {
  input.value = text;
  input.dispatchEvent(new Event('input', { bubbles: true }));
});
for (const name of ['examples', 'pairs']) {
  const block = document.getElementById(name);
  noted[name + '_sort'] = Array.from(block.querySelectorAll('th button'), (one) => timed(() => one.click()));
  noted[name + '_key'] = Array.from(block.querySelectorAll('input')).flatMap((one) =>
    (one.step === '1' ? ['5', '57', '571', ''] : ['0', '0.', '0.0', '0.05', '']).map((text) => enter(one, text)));
}
noted.panel = Object.keys(payload.panels).slice(0, 20).map((name) => timed(() => {
  location.hash = name;
  dispatchEvent(new Event('hashchange'));
}));
const body = document.querySelector('#examples tbody'), columns = Object.values(payload.tables.examples);
noted.plain_key = [timed(() => body.replaceChildren(...columns[0].map((_, row) => {
  const line = document.createElement('tr');
  line.append(...columns.map((column) => Object.assign(document.createElement('td'), { textContent: column[row] })));
  return line;
})))];
document.body.append(Object.assign(document.createElement('pre'), { id: 'noted', textContent: JSON.stringify(noted) }));
"""


def main(argv: list[str]) -> None:
    """Makes the page, opens it some times, and prints what it took."""
    del argv
    chromium = shutil.which("chromium")
    if chromium is None:
        raise app.UsageError("there is no chromium: apt-get install -y chromium")
    with tempfile.TemporaryDirectory() as folder:
        saved, data = _scores(folder)
        start = time.perf_counter()
        text = _page(saved, data)
        figures: dict[str, Any] = {"num_rows": _NUM_TRAIN.value, "render_seconds": time.perf_counter() - start}
        figures |= {"page_bytes": len(text.encode()), "panels": text.count('"helps":')}
        path = pathlib.Path(folder) / "report.html"
        path.write_text(text.replace("</body>", f"<script>{_SCRIPT}</script></body>"), encoding="utf-8")
        visits = [_visit(chromium, path, folder) for _ in range(_REPEATS.value)]
    for name in visits[0]:
        figures[name] = _summary([np.atleast_1d(visit[name]) for visit in visits])
        print(f"{name:<14} {figures[name]}")
    figures["plain_key_over_key"] = figures["plain_key"]["median_ms"] / figures["examples_key"]["median_ms"]
    print(f"page: {figures['page_bytes'] / 1e6:.1f} MB, {figures['panels']} panels, {figures['render_seconds']:.1f} s")
    print(f"a key that writes all rows anew takes {figures['plain_key_over_key']:.0f} times as long")
    print(environment.save("report", figures))


def _summary(visits: list[np.ndarray]) -> dict[str, float]:
    """Over actions, of the median of each over starts."""
    actions = np.median(visits, axis=0)
    return {"median_ms": float(np.median(actions)), "slowest_ms": float(actions.max()), "actions": len(actions)}


def _scores(folder: str) -> tuple[score_files.SavedScores, dataset_lib.Dataset]:
    generator = np.random.default_rng(0)
    num_runs, num_train = _NUM_RUNS.value, _NUM_TRAIN.value
    mask = generator.random((num_runs, num_train), np.float32) < 0.7
    right = mask | (generator.random((num_runs, num_train), np.float32) < generator.beta(5, 1, num_train))
    test = generator.random((num_runs, _NUM_TEST), np.float32) < generator.beta(5, 1, _NUM_TEST)
    for index in range(200):  # test examples that hang on one training example each
        test[:, index] = mask[:, index] | (generator.random(num_runs) < 0.3)
    labels = np.arange(num_train) % 10, np.arange(_NUM_TEST) % 10
    table = run_table.from_arrays(_EXPERIMENT, np.arange(num_runs), np.full(num_runs, 0.7), mask, right, test, *labels)
    run_table.write(layout.run_table_path(folder, _EXPERIMENT), table)
    config = score_config.ScoreConfig(
        zoo=folder, experiment=_EXPERIMENT, matrix="no", num_draws=10, pairs_memorization=-1.0
    )
    images = [generator.integers(0, 256, (len(label), 32, 32, 3), np.uint8) for label in labels]
    splits = [dataset_lib.Split(image, label) for image, label in zip(images, labels, strict=True)]
    data = dataset_lib.Dataset(
        name="simulated", version="1", train=splits[0], test=splits[1], class_names=tuple("0123456789"), scale=255.0
    )
    return score_files.load_scores(score_files.compute_scores(config).directory), data


def _page(saved: score_files.SavedScores, data: dataset_lib.Dataset) -> str:
    options = page.PageOptions(max_pairs=_NUM_TRAIN.value, max_examples=_NUM_TRAIN.value, pairs_memorization=-1.0)
    reliable = reliability_files.read(saved.directory, saved.provenance)
    built = page.build(saved, selection.ratio_scores(saved), dataset_view.view(saved, data), options, reliable)
    return built.html


def _visit(chromium: str, path: pathlib.Path, folder: str) -> dict[str, Any]:
    command = [
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"),
        *(f"--user-data-dir={folder}/profile", path.as_uri()),
    ]
    found = subprocess.run(command, capture_output=True, check=True, timeout=600).stdout.decode()
    match = re.search(r'<pre id="noted">(.*?)</pre>', found, re.DOTALL)
    assert match is not None, "the page did not answer"
    return dict(json.loads(html.unescape(match[1])))


if __name__ == "__main__":
    app.run(main)
