"""One pass over an archive: everything that one look at 239 to 367 GB can tell, in constant memory, resumably.

From its first byte to its last the compressed file is digested (MD5, CRC32C) and inflated; the tar stream in it is
parsed, every member's CRC32 noted, records (aux_arrays.npz) turned into rows of a run table, checkpoints held against
their own checksums, and places chosen where inflation can begin. All of it goes into a `zoo.archive.journal`, in
transactions, together with the state of every part, so that a killed pass goes on from the last transaction; the MD5 at
the end is still that of the whole file.

Damage does not end a pass. Where the compressed data cannot be inflated on, the next place is found from which it can;
where the tar stream is no tar stream, the next header. What lay between is lost, and said to be.
"""

from collections.abc import Callable, Iterable
import dataclasses
import time
from typing import Any

from zoo import errors, layout
from zoo.archive import (
    digests,
    gzip_stream,
    index,
    inflate,
    inflate_process,
    journal,
    member_log,
    names,
    pump,
    resync,
    run_rows,
    seek_plan,
    tar_stream,
)
from zoo.remote import addresses, source

# Compressed bytes between two transactions: some seconds of work, and every one costs a few disk flushes.
SAVE_BYTES = 1 << 26
# Over a slow line they would take minutes, all of which a kill would cost.
SAVE_S = 20.0
# A transaction waits until little of a member is held in memory, which would have to be saved too, but not for ever.
_HELD_AT_SAVE = 1 << 23
_LONGEST_WAIT = 1 << 29
_SCHEMA_VERSION = 1
# Which folder is the experiment's may turn out only behind some recipes; they are held in memory until then.
_MOST_RECIPES = 16
_MOST_FAULTS = 100

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is known of an archive from elsewhere.

    Attributes:
        md5: hexadecimal digest that the archive must have; None where it is not known.
        size: bytes that it must have; None where it is not known.
        experiment: name that its experiment shall have; None for that of the folder in the archive.
    """

    md5: str | None = None
    experiment: str | None = None
    size: int | None = None


class UnreadableArchiveError(errors.IntegrityError):
    """Not one member of an archive can be read: it is no tar.gz, or damaged from its beginning on."""


class Scan:
    """A pass over one archive.

    Args:
        archive: the object.
        log: the journal; a pass that it has begun is continued.
        expected: what is known of the archive from elsewhere.
        progress: called with the number of compressed bytes done and the number of all.
        save_bytes: compressed bytes between two transactions.

    Raises:
        MismatchError: the journal belongs to another object.
    """

    def __init__(
        self,
        archive: source.Source,
        log: journal.Journal,
        expected: Expected,
        progress: Progress | None = None,
        save_bytes: int = SAVE_BYTES,
    ) -> None:
        self._archive, self._log, self._expected = archive, log, expected
        self._progress, self._save_bytes = progress, save_bytes
        self._name = source.name(archive.state.url)
        self._where = addresses.display(archive.state.url)
        self._kept: dict[str, str] = {}
        self._check_promise()
        saved = log.progress()
        if saved:
            self._check_identity(saved)
        self._begin(saved, log.blobs())

    def _check_promise(self) -> None:
        """Refuses to read hundreds of gigabytes that cannot turn out right.

        Raises:
            IntegrityError: the object has another size, or the server states another MD5, than the archive must have.
        """
        if self._expected.size not in (None, self._archive.state.size):
            raise errors.IntegrityError(
                f"{self._where}: has {self._archive.state.size} bytes, the archive that is known has "
                f"{self._expected.size}: it is another one, or not whole. To read it all the same, name it with "
                "--archive alone"
            )
        stated, expected = self._archive.state.md5, self._expected.md5
        if stated is not None and expected is not None and stated != expected:
            raise errors.IntegrityError(
                f"{self._where}: the server states the MD5 {stated}, the archive that is known has "
                f"{expected}: it is another one. To read it all the same, name it with --archive alone"
            )

    def _check_identity(self, saved: dict[str, Any]) -> None:
        """Refuses to go on with another object than the one that was begun with."""
        now = self._identity()
        if saved["identity"] != now:
            raise errors.MismatchError(
                f"{self._where}: not what the pass in {self._log.path} began with: now {_text(now)}, then "
                f"{_text(saved['identity'])}. Delete that file to start anew"
            )

    def _identity(self) -> dict[str, Any]:
        state = self._archive.state
        return {
            "schema_version": _SCHEMA_VERSION,
            "name": self._name,
            "size": state.size,
            "version": state.version,
            "experiment": self._expected.experiment,
        }

    def _begin(self, saved: dict[str, Any], blobs: dict[str, bytes]) -> None:
        """Takes up the saved state of every part, or begins."""
        place = saved.get("inflater")
        self._place = None if place is None else gzip_stream.InflaterState.from_json(place)
        self._sums = digests.StreamDigests.from_state(saved["digests"]) if saved else digests.StreamDigests()
        self._plan = seek_plan.SeekPlan(self._log.add_point, self._place, saved.get("plan"))
        self._members = member_log.MemberLog(
            self._log, self._plan, self._expected.experiment, self._keep, saved.get("members"), blobs
        )
        self._tar = tar_stream.TarParser(state=saved.get("tar"))
        self._faults: list[str] = saved.get("faults", [])
        self._kept = saved.get("kept", {})
        self._saved_offset = 0 if self._place is None else self._place.boundary.offset
        self._ended = bool(saved.get("ended"))
        self._num_output = saved.get("num_output", 0)
        self._recent: list[pump.Chunk] = []
        self._saved_at = time.monotonic()

    def _keep(self, name: names.MemberName, content: bytes) -> None:
        if len(self._kept) < _MOST_RECIPES:
            self._kept[name.folder] = content.decode("utf-8", "replace")

    def run(self) -> index.Facts:
        """Makes the pass, or what is missing of it.

        Returns:
            What there is to say of the archive as a whole. Members, points and rows are in the journal.

        Raises:
            NetworkError: the server fails; what was done is kept.
            MismatchError: the object changed meanwhile.
            UnreadableArchiveError: it is no gzip file, or there is no tar archive in it.
        """
        if self._progress is not None and not self._ended:
            self._progress(self._saved_offset, self._archive.state.size)
        while not self._ended:
            self._pass()
        return self._facts()

    @property
    def recipe(self) -> str | None:
        """Text of the experiment's recipe; None where the archive has none."""
        return self._kept.get(self._members.folder)

    def _pass(self) -> None:
        """Goes on up to the end, or up to damage and over it."""
        start = 0 if self._place is None else self._place.boundary.offset
        inflater = inflate_process.open_inflater(self._place, self._name, self._archive.state.size - start)
        damage = None
        with pump.Pump(self._archive, inflater, start, self._sums) as flow:
            try:
                for item in flow:
                    if isinstance(item, pump.Chunk):
                        self._plan.take_chunk(item.offset, item.data)
                        self._recent = [*self._recent[-1:], item]
                    else:
                        self._take(item, flow)
            except inflate.InflateError as error:
                damage = error
        self._num_output = inflater.num_output
        if damage is None:
            self._end()
        else:
            self._skip(damage, inflater.gzip_members)

    def _take(self, item: pump.Inflated, flow: pump.Pump) -> None:
        batch = item.batch
        self._plan.take_batch(batch)
        self._parse(batch.data)
        self._members.find_ends(batch)
        self._plan.settle(self._tar.settled)
        self._plan.deliver()
        if batch.boundaries and self._progress is not None:
            self._progress(batch.boundaries[-1].offset, self._archive.state.size)
        if item.state is not None:
            self._place = item.state
            if self._is_time_to_save(item.state.boundary):
                self._save(flow.digest_state(item.state.boundary.offset))

    def _parse(self, data: memoryview) -> None:
        """Takes tar data; where they are none, searches for the next header.

        Raises:
            UnreadableArchiveError: the very first bytes are no tar header.
            UnsafeArchiveError: what is in it must not be read.
        """
        start = self._tar.position
        while True:
            try:
                self._deliver(self._tar.feed(data[self._tar.position - start :]))
                return
            except tar_stream.TarHeaderError as error:
                if not self._members.num_members:
                    raise UnreadableArchiveError(f"{self._name}: not a tar archive: {error}") from error
                self._fault(f"the tar stream is damaged behind {self._members.last_name}: {error}")
                self._tar = self._tar.behind(error)
            except errors.UnsafeArchiveError as error:
                raise errors.UnsafeArchiveError(f"{self._name}: {error}") from error

    def _deliver(self, events: Iterable[tar_stream.Start | tar_stream.Data | tar_stream.End]) -> None:
        for event in events:
            if isinstance(event, tar_stream.Data):
                self._members.data(event.data)
            elif isinstance(event, tar_stream.Start):
                self._members.start(event.member)
            else:
                self._members.end()

    def _is_time_to_save(self, boundary: gzip_stream.Boundary) -> bool:
        since = boundary.offset - self._saved_offset
        # A header that has begun belongs to a boundary before this one.
        settled = self._tar.settled == boundary.position
        due = since >= self._save_bytes or (since > 0 and time.monotonic() - self._saved_at >= SAVE_S)
        return settled and due and (self._members.num_held <= _HELD_AT_SAVE or since >= _LONGEST_WAIT)

    def _save(self, digest_state: dict[str, Any]) -> None:
        inside, blobs = self._members.state()
        progress = {
            "identity": self._identity(),
            "inflater": None if self._place is None else self._place.to_json(),
            "digests": digest_state,
            "plan": self._plan.state(),
            "members": inside,
            "tar": self._tar.state(),
            "faults": self._faults,
            "kept": self._kept,
            "ended": self._ended,
            "num_output": self._num_output,
        }
        self._log.commit(progress, blobs)
        self._saved_at = time.monotonic()
        self._saved_offset = 0 if self._place is None else self._place.boundary.offset

    def _skip(self, damage: inflate.InflateError, gzip_members: int) -> None:
        """Finds the next place from which the archive can be inflated."""
        self._check_transfer(damage)
        passing = self._members.passing_name
        after = passing or self._members.last_name
        if not self._members.num_members and self._place is None and not gzip_members:
            raise UnreadableArchiveError(f"{damage}") from damage
        self._members.interrupt(damage.offset, f"the archive is damaged near its byte {damage.offset}: {damage}")
        found = resync.resync(self._archive.read, damage.offset, self._archive.state.size, damage.position)
        if found is None:
            at_end = damage.offset >= self._archive.state.size
            self._fault(f"{damage}" if at_end else f"{damage} Nothing behind {after} can be read")
            self._digest_rest()
            self._end(complete=False)
            return
        self._fault(f"{damage} Went on at byte {found.skipped_to}; what lay behind {after} in between is lost")
        self._place = found.state
        self._plan.begin_at(found.state)
        self._tar = tar_stream.TarParser(found.state.boundary.position, searching=True)

    def _check_transfer(self, damage: inflate.InflateError) -> None:
        """Tells damage on the way from damage in the archive.

        Raises:
            NetworkError: read again, the bytes are others.
        """
        for chunk in self._recent if self._archive.accepts_ranges else ():
            if self._archive.read(chunk.offset, len(chunk.data)) != chunk.data:
                raise errors.NetworkError(
                    f"{self._where}: bytes {chunk.offset} to {chunk.offset + len(chunk.data)} came "
                    "differently when they were read again: the server or the way to it garbles data. The same "
                    "command continues from its last saved state"
                ) from damage

    def _digest_rest(self) -> None:
        """The digests are those of the whole file, whatever can be read of it."""
        for chunk in self._archive.stream(self._sums.num_bytes):
            self._sums.update(chunk)

    def _end(self, *, complete: bool = True) -> None:
        """The last byte has been read."""
        self._archive.check_unchanged()
        if self._progress is not None:
            self._progress(self._archive.state.size, self._archive.state.size)
        if complete:
            try:
                self._tar.finish()
            except errors.DamagedFileError as error:
                self._fault(f"{error}")
        if self._faults and not self._members.num_members:
            raise UnreadableArchiveError(f"{self._faults[0]}; not one member of the archive can be read")
        self._members.interrupt(self._archive.state.size, "the archive ends within this member")
        self._plan.settle(self._num_output)
        self._plan.finish()
        for run, reason in run_rows.unusable(self._log).items():
            self._log.judge_record(run, f"{layout.ratio_name(run[0])}/{run[1]}/{layout.AUX_ARRAYS_NAME}: {reason}")
        self._ended = True
        self._save(self._sums.state())

    def _fault(self, text: str) -> None:
        # A hostile archive could have any number of them.
        if len(self._faults) < _MOST_FAULTS:
            self._faults.append(text)
        elif len(self._faults) == _MOST_FAULTS:
            self._faults.append("and more, of which only the members are named")

    def _facts(self) -> index.Facts:
        """What there is to say of the archive, the digests compared with what is known."""
        checked, faults = _compare(self._sums, self._expected.md5, self._archive.state)
        faults = [*self._faults, *faults]
        states: tuple[index.State, ...] = ("damaged", "refused")
        for state in states:
            count = self._log.count_members(state)
            if count:
                faults.append(f"{count} {'member is' if count == 1 else 'members are'} {state}")
        return index.Facts(
            name=self._name,
            size=self._archive.state.size,
            md5=self._sums.md5_hex(),
            crc32c=self._sums.crc32c,
            uncompressed_size=self._num_output,
            experiment=self._members.experiment,
            folder=self._members.folder,
            header_formats=tuple(self._members.header_formats),
            num_runs=len(run_rows.usable(self._log)),
            state="damaged" if faults else "sound",
            faults=tuple(faults),
            checked="not verified" if faults else checked,
        )


def _compare(sums: digests.StreamDigests, md5: str | None, state: source.ObjectState) -> tuple[str, list[str]]:
    """What the digests were compared with, and where they differ."""
    computed = sums.md5_hex()
    compared, faults = [], []
    for wanted, origin in ((md5, "known for this archive"), (state.md5, "stated by the server")):
        if wanted is not None and computed is not None:
            compared.append(f"MD5 {origin}")
            if wanted != computed:
                faults.append(f"MD5 is {computed}, the one {origin} is {wanted}")
    if state.crc32c is not None:
        compared.append("CRC32C stated by the server")
        if state.crc32c != sums.crc32c:
            faults.append(f"CRC32C is {sums.crc32c:08x}, the one stated by the server is {state.crc32c:08x}")
    checked = "CRC32 of gzip agrees; no MD5 or CRC32C was known to compare with"
    if compared:
        checked = f"verified: {', '.join(compared)}, CRC32 of gzip"
    if computed is None:
        checked += "; MD5 was not computed, because its state could not be kept over a restart on this machine"
    return checked, faults


def _text(identity: dict[str, Any]) -> str:
    name = "" if identity["experiment"] is None else f" as {identity['experiment']}"
    return f"{identity['name']}{name}, {identity['size']} bytes, version {identity['version']}"
