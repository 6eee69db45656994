"""Worker process of `compute_scores` on a cluster: computes tiles of subset influence into a folder that all share."""

from collections.abc import Callable
import json
import pathlib

from heldout.running import workers
from heldout.scoring import influence_files, influence_parts, influence_pass
from zoo import run_table


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Reads the runs; returns the function that computes one tile."""
    runs = run_table.read(pathlib.Path(setup["runs"]) / influence_files.TABLE_NAME)
    directory = pathlib.Path(setup["directory"])
    settings = influence_pass.Settings(**setup["settings"])
    shape = (runs.num_train, runs.num_test)
    folder = influence_files.folder_of(
        directory, setup["subset_ratio"], shape, json.loads(setup["provenance"]), settings
    )
    workers.check_shared(folder.note)
    digests = influence_files.run_digests(runs)
    work = influence_files.work_of(directory, runs, setup["subset_ratio"], settings, digests)
    num_threads, limit = setup["num_threads"], setup["memory_limit_bytes"]
    rows = influence_pass.strip_rows(runs.num_runs, runs.num_test, settings.top_k, num_threads, limit)
    tiles = {tile.start: tile for tile in influence_parts.tiles(runs.num_train)}

    def compute(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        tile = tiles[task["tile"]]
        if not folder.is_done(tile):
            influence_pass.compute_tile(work, folder, tile, num_threads, rows)
        send({"tile": tile.start, "rows": len(tile)})

    return compute, {}


if __name__ == "__main__":
    workers.serve(start)
