"""Archives on servers that fail, and what the programs that read them should make of them."""

from concurrent import futures
import dataclasses
import json
import pathlib
import re

from tests.scripts import archive_programs
from tests.zoo.remote import fault_server
from zoo import layout

PROGRAMS = ("zoo_stream", "zoo_download", "zoo_fetch", "zoo_index")
ARCHIVE_NAME = archive_programs.ARCHIVE_NAME
INDEX_NAME = f"{ARCHIVE_NAME}{layout.ARCHIVE_INDEX_SUFFIX}"
RUNS = tuple((ratio, run_id) for ratio in (0.3, 0.7) for run_id in range(6))


@dataclasses.dataclass
class Case:
    """A server with the archive of a zoo, the folder that a program writes to, and what it should make of it."""

    zoo: pathlib.Path
    sound: bytes
    server: fault_server.FaultServer
    dest: pathlib.Path
    results: pathlib.Path

    @property
    def size(self):
        return len(self.sound)

    @property
    def archive(self):
        return self.server.root / ARCHIVE_NAME

    @property
    def sound_index(self):
        return layout.archive_index_path(self.results / "zoo_stream", archive_programs.EXPERIMENT)

    @property
    def own_index(self):
        return layout.archive_index_path(self.dest, archive_programs.EXPERIMENT)

    def flags(self, program, *more):
        """Of flags that are given twice the later ones count."""
        flags = [f"--archive={self.server.url(ARCHIVE_NAME)}", "--num_tries=3"]
        flags.append(f"--output={self.dest}/{INDEX_NAME}" if program == "zoo_index" else f"--dest={self.dest}")
        if program == "zoo_fetch":
            flags += ["--runs=all", f"--index={self.sound_index}"]
        return [*flags, *more]

    def run(self, program, *more):
        return archive_programs.run(program, *self.flags(program, *more))

    def assert_finishes(self, program, *more):
        """The command succeeds, and with the results of an undisturbed one."""
        result = self.run(program, *more)
        assert result.returncode == 0, result.stderr
        archive_programs.assert_same(self.results / program, self.dest)
        return result

    def replace_archive(self, content):
        """Puts another object in the archive's place, at once."""
        path = self.archive.with_name("new")
        path.write_bytes(content)
        path.replace(self.archive)


def near_the_end(size):
    """Whether a request is for bytes of the last fifth."""

    def is_near(method, path, wanted):
        match = re.match(r"bytes=(\d+)-", wanted)
        return match is not None and int(match[1]) > 0.8 * size

    return is_near


def covering(offset):
    """Whether a request is for a range with a byte in it."""

    def is_covering(method, path, wanted):
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        return match is not None and int(match[1]) <= offset <= int(match[2])

    return is_covering


def at_once(case, action):
    """Calls action(program, case) for all programs at the same time, since they mostly wait; each has its folder."""
    with futures.ThreadPoolExecutor(len(PROGRAMS)) as pool:
        cases = [dataclasses.replace(case, dest=case.dest.with_name(program)) for program in PROGRAMS]
        list(pool.map(action, PROGRAMS, cases))


def registry(case, md5):
    """Flags by which the archive is known, with an MD5."""
    path = case.dest.with_name("registry.json")
    entry = {"name": archive_programs.EXPERIMENT, "url": case.server.url(ARCHIVE_NAME), "md5": md5}
    path.write_text(json.dumps({"schema_version": 1, "experiments": [entry]}))
    return f"--registry={path}", f"--experiment={archive_programs.EXPERIMENT}"
