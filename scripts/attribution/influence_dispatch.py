"""Hands a computation of influence functions to worker processes: one here, or many on a cluster."""

from collections.abc import Generator
import contextlib
import os
from typing import Any

from heldout.running import dispatch, retries, runners
from scripts.attribution import influence_config, source_config
from zoo import errors

_WORKER = "scripts.attribution.influence_worker"


def compute(
    config: influence_config.InfluenceConfig,
    source: source_config.SourceConfig,
    device: str,
    runner: runners.Runner,
    num_workers: int | None,
) -> Generator[dispatch.Message, None, None]:
    """Computes what is not there yet.

    Args:
        config: what.
        source: of which model.
        device: "cpu", "gpu" or "tpu".
        runner: where workers run. On this machine there is one, which uses all of it.
        num_workers: on a cluster; None for as many as it has room for.

    Yields:
        {"progress": [stage, done, all]}, {"note": text}, and at the end {"finished": ...} of
        `influence_results.summary`.

    Raises:
        HeldoutError: what the worker reports.
    """
    is_local = runner.name == runners.LOCAL
    if is_local and num_workers is not None:
        raise errors.InvalidValueError("--workers says nothing without --runner=ray; leave it out")
    with runners.opened(runner, device, 1 if is_local else num_workers) as opened:
        if not is_local:
            yield from _blocks_on_cluster(opened, _setup(config, source, device, opened, opened.most_workers))
        yield from opened.run_tasks(
            _WORKER, _setup(config, source, device, opened, 1), [{"do": "finish"}], num_workers=1
        )


def _setup(
    config: influence_config.InfluenceConfig,
    source: source_config.SourceConfig,
    device: str,
    opened: runners.OpenRunner,
    num_workers: int,
) -> dict[str, Any]:
    paths = {"outdir": os.path.abspath(config.outdir)}
    paths |= {
        name: os.path.abspath(value)
        for name in ("save_pth", "log_filename")
        if (value := getattr(config, name)) is not None
    }
    return {
        "config": config.to_json() | paths,
        "source": source.to_json(),
        "device": device,
        "num_threads": opened.num_threads(num_workers) if device == "cpu" else None,
    }


def _blocks_on_cluster(opened: runners.OpenRunner, setup: dict[str, Any]) -> Generator[dispatch.Message, None, None]:
    """The curvature on one worker, then the blocks on many."""
    starts: list[int] = []
    with contextlib.closing(opened.run_tasks(_WORKER, setup, [{"do": "prepare"}], num_workers=1)) as messages:
        for message in messages:
            starts = message.get("starts", starts)
            yield message
    if len(starts) < 2:
        return
    tasks = [{"do": "block", "start": start} for start in starts]
    setup = setup | {"seen_by_all": os.path.join(setup["config"]["outdir"], influence_config.CONFIG_NAME)}
    num_workers, num_done = min(opened.most_workers, len(tasks)), 0
    with contextlib.closing(
        opened.run_tasks(
            _WORKER,
            setup,
            tasks,
            num_workers=num_workers,
            recover=retries.Retries("start", "the block of test examples from position"),
        )
    ) as messages:
        for message in messages:
            num_done += "block" in message
            yield {"progress": ["blocks", num_done, len(tasks)]} if "block" in message else message
