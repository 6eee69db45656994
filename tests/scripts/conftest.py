"""The archive on a server that the tests of its faults share, made once."""

import dataclasses

import pytest

from tests.scripts import archive_cases, archive_programs
from tests.zoo.remote import fault_server


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The zoo, its archive, and the results of undisturbed programs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    zoo, served = archive_programs.make(folder, archive_cases.RUNS, num_parameters=100_000)
    sound, results = (served / archive_programs.ARCHIVE_NAME).read_bytes(), folder / "results"
    with fault_server.FaultServer(served) as server:
        cases = [
            archive_cases.Case(zoo, sound, server, results / program, results) for program in archive_cases.PROGRAMS
        ]
        for program, case in zip(archive_cases.PROGRAMS, cases, strict=True):
            assert case.run(program).returncode == 0
    return cases[-1]


@pytest.fixture
def case(tmp_path, undisturbed):
    """A server of its own with the sound archive, and a folder that is not there yet."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / archive_programs.ARCHIVE_NAME).write_bytes(undisturbed.sound)
    with fault_server.FaultServer(folder) as server:
        yield dataclasses.replace(undisturbed, server=server, dest=tmp_path / "dest")
