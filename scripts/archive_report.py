"""What the programs that read archives print about them."""

import pathlib

from scripts import cli
from zoo import files
from zoo.archive import index

_MOST_MEMBERS = 20


def say(facts: index.Facts, index_path: pathlib.Path, run_table: pathlib.Path | None = None) -> int:
    """Prints what there is to say of an archive.

    Args:
        facts: what the pass over it found.
        index_path: the index that it made.
        run_table: the run table that it made besides, if any.

    Returns:
        The exit status, 3 if the archive is damaged.
    """
    md5 = f"MD5 {facts.md5}" if facts.md5 is not None else f"CRC32C {facts.crc32c:08x}"
    print(f"{facts.name}: {files.size_text(facts.size)}, {md5}")
    print(facts.checked)
    print(f"index: {index_path} ({files.size_text(index_path.stat().st_size)})")
    if facts.state == "sound":
        return 0
    for fault in facts.faults:
        print(f"damaged: {fault}")
    with index.Index(index_path) as stored:
        faulty = list(stored.faulty_members())
    for member in faulty[:_MOST_MEMBERS]:
        reason = member.reason.removeprefix("member ").removeprefix(f"{member.name}: ")
        print(f"  {member.state}: {member.name}: {reason}")
    if len(faulty) > _MOST_MEMBERS:
        print(f"  and {len(faulty) - _MOST_MEMBERS} more: zoo_verify --archive names them all")
    made = [str(path) for path in (index_path, run_table) if path is not None and path.exists()]
    print(f"What is sound can be used. To read the archive again, delete {' and '.join(made)}")
    return cli.DAMAGED_STATUS
