"""Room on the disk, checked before long work begins."""

from zoo import files


def check(folder: files.PathLike, num_bytes: int) -> None:
    """Refuses to begin what would fill the disk.

    Raises:
        DiskSpaceError: fewer than `num_bytes` bytes are free.
    """
    files.check_room(folder, num_bytes, "the files")
