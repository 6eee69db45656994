"""Hands shards of statistics to worker processes: one here, or many on a cluster; needs no TensorFlow."""

from collections.abc import Generator, Sequence
import contextlib
import os
from typing import Any

from heldout.running import dispatch, retries, runners
from scripts.jacobian_stats import stats_config

_WORKER = "scripts.jacobian_stats.stats_worker"


def compute(
    config: stats_config.StatsConfig,
    sources: Sequence[stats_config.SourceConfig],
    shards: Sequence[tuple[int, int]],
    device: str,
    runner: runners.Runner,
    num_workers: int | None,
) -> Generator[dispatch.Message, None, None]:
    """Computes what is not there yet.

    Args:
        config: what.
        sources: of which models.
        shards: which of each.
        device: "cpu", "gpu" or "tpu".
        runner: where workers run.
        num_workers: None for one on this machine, which uses all of it, or as many as a cluster has room for.

    Yields:
        {"progress": [stage, done, all]}, {"note": text}, and {"found": ...} for each table, see `stats_report.line`.

    Raises:
        HeldoutError: what a worker reports.
    """
    is_local = runner.name == runners.LOCAL
    wanted = (num_workers or 1) if is_local else num_workers
    with runners.opened(runner, device, wanted) as opened:
        tasks = [(number, shard) for number in range(len(sources)) for shard in shards]
        # The first shard of each makes its folder, which the others find made.
        first = [task for task in tasks if task[1] == shards[0]]
        rounds = [tasks] if opened.most_workers == 1 else [first, [task for task in tasks if task not in first]]
        for part in rounds:
            if part:
                yield from _run(config, sources, part, device, opened)


def _run(
    config: stats_config.StatsConfig,
    sources: Sequence[stats_config.SourceConfig],
    parts: Sequence[tuple[int, tuple[int, int]]],
    device: str,
    opened: runners.OpenRunner,
) -> Generator[dispatch.Message, None, None]:
    num_workers = min(opened.most_workers, len(parts))
    setup = {
        "config": config.to_json(),
        "sources": [source.to_json() | _absolute(source) for source in sources],
        "device": device,
        "num_threads": opened.num_threads(num_workers) if device == "cpu" else None,
    }
    # The source goes with its shard in one member, by which a lost task is told from others.
    tasks = [{"part": f"{number}:{i}/{n}"} for number, (i, n) in parts]
    shares: dict[str, float] = {}
    recover = retries.Retries("part", "model and shard")
    with contextlib.closing(
        opened.run_tasks(_WORKER, setup, tasks, num_workers=num_workers, recover=recover)
    ) as messages:
        for message in messages:
            if "progress" in message and len(parts) > 1:
                stage, done, total = message["progress"]
                shares[message["part"]] = done / max(1, total)
                yield {"progress": [stage, round(100 * sum(shares.values()) / len(parts)), 100]}
            else:
                yield message


def _absolute(source: stats_config.SourceConfig) -> dict[str, Any]:
    return {
        name: os.path.abspath(value)
        for name in ("run", "save_dir", "outdir")
        if (value := getattr(source, name)) is not None
    }
