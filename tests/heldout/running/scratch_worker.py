"""A worker program for scratch_test: leaves a temporary file and says where."""

import tempfile

from heldout.running import workers


def start(setup):
    del setup

    def perform(task, send):
        del task
        with tempfile.NamedTemporaryFile(delete=False) as left:
            send({"left": left.name})

    return perform, {}


if __name__ == "__main__":
    workers.serve(start)
