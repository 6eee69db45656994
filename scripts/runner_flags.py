"""Flags that say where worker processes run, for the programs that can use a cluster."""

from absl import flags

from heldout.running import runners

RUNNER = flags.DEFINE_enum(
    "runner", runners.LOCAL, runners.RUNNERS, "Where workers run: processes of this machine, or a Ray cluster."
)
RAY_ADDRESS = flags.DEFINE_string(
    "ray_address",
    None,
    "With --runner=ray: auto, HOST:PORT or ray://HOST:PORT of a running cluster; without it one of this machine that "
    "ends with the program.",
)
NUM_CPUS_PER_WORKER = flags.DEFINE_integer("num_cpus_per_worker", 1, "With --runner=ray: cores for each worker.")
NUM_GPUS_PER_WORKER = flags.DEFINE_float(
    "num_gpus_per_worker", 0.0, "With --runner=ray: GPUs for each worker; 0.5 puts two on one."
)
# For the list of shared flags of a program.
NAMES = tuple(flag.name for flag in (RUNNER, RAY_ADDRESS, NUM_CPUS_PER_WORKER, NUM_GPUS_PER_WORKER))


def runner() -> runners.Runner:
    """What the flags say."""
    return runners.Runner(RUNNER.value, RAY_ADDRESS.value, NUM_CPUS_PER_WORKER.value, NUM_GPUS_PER_WORKER.value)
