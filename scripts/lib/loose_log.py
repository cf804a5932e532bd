"""The records of a step log, as docs/step_log.md lays them out, read while it is written: what scripts/loose_nodes counts."""
import struct
from dataclasses import dataclass, field

ROUND, SNAPSHOT, DIGEST, END, RESEED = range(1, 6)
SEGMENT_HEADER, RECORD_HEAD = 32, 56
LOST_A_RACE = 8  # a flag
MAGIC = b"TSB1"


@dataclass
class Record:
    type: int
    round: int
    lanes: int
    lost_a_race: bool
    extra_groups: int
    changes: list = field(default_factory=list)  # (lane, joins, machine)
    present: list = field(default_factory=list)  # lanes that have a vote of the round itself


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def record_of(data):
    if data[:4] != MAGIC:
        raise ValueError("no record where one is expected")
    kind, flags = data[5], struct.unpack_from("<H", data, 6)[0]
    round = struct.unpack_from("<I", data, 12)[0]
    lanes, roster_bytes, extra_groups = struct.unpack_from("<HHH", data, 46)
    record = Record(kind, round, lanes, bool(flags & LOST_A_RACE), extra_groups)
    at = RECORD_HEAD
    while at < RECORD_HEAD + roster_bytes:
        lane, at = varint(data, at)
        record.changes.append((lane, data[at] == 1, struct.unpack_from("<I", data, at + 1)[0]))
        at += 5
    if kind == ROUND:
        record.present = [lane for lane in range(lanes) if data[at + lane // 8] >> lane % 8 & 1]
    return record


def records(folder):
    """Those that are whole: the last one may be being written."""
    found = []
    for file in sorted(folder.glob("*.tsb")):
        data, at = file.read_bytes(), SEGMENT_HEADER
        while at + 4 <= len(data):
            size = struct.unpack_from("<I", data, at)[0]
            if at + 4 + size > len(data):
                break
            found.append(record_of(data[at + 4:at + 4 + size]))
            at += 4 + size
    return found


def roster(found):
    """Machine of each lane that is taken, behind the last record."""
    taken = {}
    for record in found:
        for lane, joins, machine in record.changes:
            if joins:
                taken[lane] = machine
            else:
                taken.pop(lane, None)
    return taken


def machines_of_lanes(found):
    """All machines that ever had it, of each lane."""
    had = {}
    for record in found:
        for lane, joins, machine in record.changes:
            if joins:
                had.setdefault(lane, set()).add(machine)
    return had
