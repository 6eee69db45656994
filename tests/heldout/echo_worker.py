"""A worker program for workers_test: does what its task says."""

import os
import signal
import time

from heldout import workers
from zoo import errors


def start(setup):
    def perform(task, send):
        if task.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if task.get("exit"):
            print("some last words", flush=True)
            os._exit(3)
        if task.get("refuse"):
            raise errors.InvalidValueError("--flag=7: expected 8")
        if task.get("sleep"):
            send({"process": os.getpid()})
            time.sleep(task["sleep"])
        print("chatter on standard output does not disturb")
        send({"echo": task["value"] * setup["factor"], "process": os.getpid()})

    return perform, {"fact": setup["factor"]}


if __name__ == "__main__":
    workers.serve(start)
