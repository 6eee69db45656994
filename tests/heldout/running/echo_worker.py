"""A worker program for workers_test: does what its task says."""

import os
import pathlib
import signal
import time

from heldout.running import workers
from zoo import errors


def start(setup):
    for number in range(setup.get("deaths_at_start", 0)):
        die_unless_marked(setup, f"start-{number}")
    facts = {"fact": setup["factor"]}
    if "folder" in setup:
        facts["supplied"] = (pathlib.Path(setup["folder"]) / "text").read_text()

    def perform(task, send):
        if task.get("die_once"):
            send({"process": os.getpid()})
            die_unless_marked(setup, str(task["value"]))
        if task.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if task.get("exit"):
            print("some last words", flush=True)
            os._exit(3)
        if task.get("exhaust"):
            raise MemoryError("an array of 3 TB")
        if task.get("refuse"):
            raise errors.InvalidValueError("--flag=7: expected 8")
        if task.get("sleep"):
            send({"process": os.getpid()} | ({"parent": os.getppid()} if "parent" in task else {}))
            time.sleep(task["sleep"])
        print("chatter on standard output does not disturb")
        send({"echo": task["value"] * setup["factor"], "process": os.getpid()})

    return perform, facts


def die_unless_marked(setup, name):
    mark = pathlib.Path(setup["marks"]) / name
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    workers.serve(start)
