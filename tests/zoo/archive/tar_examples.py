"""Archives by Python's tarfile with everything in them that a tar archive can have, one of each format."""

import itertools
import tarfile

from tests.zoo.archive import archives

LONG = "e/0.5/" + 60 * "long/" + "aux_arrays.npz"
LONG_USTAR = 10 * "folder/" + 80 * "n"
CONTENTS = [b"", b"a", 511 * b"b", 512 * b"c", 513 * b"d", bytes(2000), 3 * b"last"]


def _members(tar_format):
    long_name = {"v7": 99 * "n", "ustar": LONG_USTAR}.get(tar_format, LONG)
    long_link = 99 * "l" if tar_format in ("v7", "ustar") else 300 * "l"
    all_names = ["./e/recipe.json", long_name, "e/é…", "e/0.5/1/aux_arrays.npz", "e/\udcff", "x", f"./{long_name[2:]}"]
    files = [archives.member(name, data, tar_format) for name, data in zip(all_names, CONTENTS, strict=True)]
    special = [
        archives.member("e/0.5", tar_format=tar_format, type=tarfile.DIRTYPE),
        archives.member("e/link", tar_format=tar_format, type=tarfile.SYMTYPE, linkname=long_link),
        archives.member("e/hard", tar_format=tar_format, type=tarfile.LNKTYPE, linkname="x"),
        archives.member("e/pipe", tar_format=tar_format, type=tarfile.FIFOTYPE),
        archives.member("e/device", tar_format=tar_format, type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        archives.member("e/disk", tar_format=tar_format, type=tarfile.BLKTYPE),
    ]
    return [member for pair in itertools.zip_longest(files, special) for member in pair if member]


BY_FORMAT = {tar_format: archives.tar_bytes(_members(tar_format), tar_format) for tar_format in archives.TAR_FORMATS}
