"""The worker of `train_runs` with no more memory than a task says, beyond what it has when it is ready."""

import pathlib
import re
import resource

from heldout.running import workers
from heldout.training import train_worker


def start(setup):
    perform, facts = train_worker.start(setup)
    status = pathlib.Path("/proc/self/status").read_text()
    used = int(re.search(r"VmSize:\s+(\d+) kB", status)[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + setup["more_bytes"],) * 2)
    return perform, facts


if __name__ == "__main__":
    workers.serve(start)
