"""Recordings that were cut, flipped, forged, planted or never ours: a Snapshot with warnings, or a RecordingError."""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import textwrap
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from gpumem_magic.capture.recording import RecordingError, open_recording, recordings
from gpumem_magic.model.history import HISTORY_DTYPE, HOST_DTYPE, LEVEL_ROWS, LEVELS, by_device, finest

from .process import run_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpumem_magic.model.snapshot import Snapshot

MUTATIONS = 500


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A recording with stacks, cells, notes, a failure, and memory of several kinds."""
    home = tmp_path_factory.mktemp("sound")
    directory = run_program(
        """
        from gpumem_magic import api
        gpumem.start()
        for number in range(20):
            with gpumem.track(f"cell {number}"):
                kept = alloc(4096 * (1 + number))
                free(alloc(8192))
        cuda.cuMemFree_v2(ctypes.c_uint64(0x123))
        api.session().pause(); api.session().resume()
        assert api.session()._sampler.refresh(30) and api.session()._sampler.refresh()
        answer(directory=gpumem.status().recording)
        gpumem.stop()
        """,
        home,
    ).answer["directory"]
    return pathlib.Path(directory)


@pytest.fixture
def copy(sound: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(sound, tmp_path / "copy"))


def read_everything(directory: pathlib.Path) -> Snapshot | None:
    """What views and exports will look at. None where it is no recording, which is said in a sentence."""
    problem = ""
    try:
        snapshot = open_recording(directory)
    except RecordingError as error:
        problem = str(error)
    if problem:
        assert problem.endswith(".")
        assert len(problem) > 20
        return None
    for stack in range(len(snapshot.stacks) + 2):
        snapshot.stacks.frames(stack)
    for cell in snapshot.cells:
        assert isinstance(cell.label, str)
        assert isinstance(cell.first_line, str)
        assert isinstance(cell.error, str)
        assert cell.delta_bytes is not None
    for gap in snapshot.gaps:
        assert isinstance(gap.reason, str)
    snapshot.events.between(0, 2**64 - 1)
    for rows in by_device(snapshot.history).values() if snapshot.history is not None else ():
        finest(rows)
        assert (rows["samples"] > 0).all()
    assert all(warning.endswith(".") for warning in snapshot.warnings)
    return snapshot


def test_sound(sound: pathlib.Path) -> None:
    snapshot = read_everything(sound)
    assert snapshot is not None
    assert snapshot.warnings == ()
    assert len(snapshot.cells) == 20
    assert len(snapshot.gaps) == 1
    snapshot.self_check()


def damage(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.randint(1, 5)):
        if not data:
            return
        at = dice.randrange(min(len(data), 200) if dice.random() < 0.4 else len(data))
        kind = dice.randrange(5)
        if kind == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            data[at] = dice.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at : at + 8] = struct.pack("<Q", dice.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
        else:
            data[at:at] = dice.randbytes(dice.randrange(1, 64))


def forge_header(data: bytearray) -> None:
    if len(data) >= 64:
        data[60:64] = struct.pack("<I", zlib.crc32(data[:60]))


def forge_records(data: bytearray) -> None:
    """Give each record the checksum of its damaged payload, as a hostile author would."""
    position = 4096
    while position + 12 <= len(data):
        (length,) = struct.unpack_from("<I", data, position)
        payload = data[position + 12 : position + 12 + length]
        data[position + 8 : position + 12] = struct.pack("<I", zlib.crc32(payload))
        position += 12 + length + (-length % 4)
    forge_header(data)


def forge_rows(data: bytearray) -> None:
    """Give the first row of each level of the first device the checksum of what it says now."""
    forge_header(data)
    device = 4096 + LEVELS * LEVEL_ROWS * (HOST_DTYPE.itemsize + 4)
    checks = device + LEVELS * LEVEL_ROWS * HISTORY_DTYPE.itemsize
    if len(data) < checks + LEVELS * LEVEL_ROWS * 4:
        return
    for slot in range(0, LEVELS * LEVEL_ROWS, LEVEL_ROWS):
        row = device + slot * HISTORY_DTYPE.itemsize
        data[row + 24 : row + 32] = struct.pack("<q", -(2**63))
        struct.pack_into("<I", data, checks + slot * 4, zlib.crc32(data[row : row + HISTORY_DTYPE.itemsize]))


@pytest.mark.parametrize(
    ("pattern", "forge"),
    [
        ("events-00000001.bin", None),
        ("events-00000001.bin", forge_header),
        ("tables-00000001.bin", None),
        ("tables-00000001.bin", forge_records),
        ("session.json", None),
        ("history.bin", None),
        ("history.bin", forge_rows),
    ],
)
def test_mutations(pattern: str, forge: Callable[[bytearray], None] | None, copy: pathlib.Path) -> None:
    file = copy / pattern
    original = file.read_bytes()
    opened = 0
    for seed in range(MUTATIONS):
        data = bytearray(original)
        damage(data, random.Random(seed))
        if forge is not None:
            forge(data)
        file.write_bytes(data)
        opened += read_everything(copy) is not None
    assert opened > MUTATIONS // 10  # most damage leaves most of a recording readable


def test_every_truncation_of_the_tables(copy: pathlib.Path) -> None:
    file = copy / "tables-00000001.bin"
    original = file.read_bytes()
    for size in range(0, len(original), 173):
        file.write_bytes(original[:size])
        snapshot = read_everything(copy)
        assert snapshot is not None
        assert snapshot.warnings


def session_file(**changes: Any) -> dict[str, Any]:
    process = {"host": "h", "pid": 1}
    return {"format": "gpumem_magic recording", "version": 1, "process": process, "devices": [], **changes}


DEVICE = {"ordinal": 0, "name": "GPU", "total_bytes": 1}
HOSTILE_SESSIONS: dict[str, Any] = {
    "a list": [],
    "a number": 5,
    "null": None,
    "nothing": {},
    "a foreign format": {"format": "x"},
    "a later version": session_file(version=99),
    "a version of another type": session_file(version=[1]),
    "process is a list": session_file(process=[]),
    "process is text": session_file(process="me"),
    "process is empty": session_file(process={}),
    "host is a number": session_file(process={"host": 5, "pid": 1}),
    "pid is text": session_file(process={"host": "h", "pid": "1"}),
    "pid is huge": session_file(process={"host": "h", "pid": 10**300}),
    "devices is a number": session_file(devices=5),
    "devices is an object": session_file(devices={"a": 1}),
    "devices of numbers": session_file(devices=[1, 2]),
    "devices of lists": session_file(devices=[[1]]),
    "ordinal is text": session_file(devices=[{**DEVICE, "ordinal": "0"}]),
    "total is text": session_file(devices=[{**DEVICE, "total_bytes": "1"}]),
    "a million devices": session_file(devices=[DEVICE] * 100_000),
    "paths": session_file(process={"host": "../../etc/passwd", "pid": 1}, devices=[{**DEVICE, "name": "/dev/zero"}]),
}


@pytest.mark.parametrize("name", HOSTILE_SESSIONS)
def test_hostile_session_files(name: str, copy: pathlib.Path) -> None:
    (copy / "session.json").write_text(json.dumps(HOSTILE_SESSIONS[name]))
    read_everything(copy)


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", b"{", b"\0" * 100, b'{"version": 1e999}', b"1" * 10000, b"[" * 200_000, b'{"a":' * 200_000],
    ids=["empty", "no UTF-8", "cut short", "zeros", "infinity", "a long number", "deep lists", "deep objects"],
)
def test_session_files_that_are_no_json(text: bytes, copy: pathlib.Path) -> None:
    (copy / "session.json").write_bytes(text)
    read_everything(copy)


def table_segment(*records: tuple[int, bytes]) -> bytes:
    body = b"".join(
        struct.pack("<IHHI", len(payload), kind, 0, zlib.crc32(payload)) + payload + bytes(-len(payload) % 4)
        for kind, payload in records
    )
    head = b"GPUMEMTB" + struct.pack("<IIIIQQIIQI", 1, 4096, 0, 1, 0, 1 << 22, 1, 0, 0, 0)
    head += struct.pack("<IQII", zlib.crc32(head), len(body), 0, 0)
    return head.ljust(4096, b"\0") + body


CODE, NODE, LIBRARY, SPAN, NOTE = 1, 2, 3, 5, 6
HOSTILE_RECORDS: dict[str, list[tuple[int, bytes]]] = {
    "notes of deep lists": [(NOTE, bytes(8) + b"[" * 200_000)],
    "notes of deep objects": [(NOTE, bytes(8) + b'{"a":' * 100_000)],
    "notes that are no objects": [(NOTE, bytes(8) + b"5"), (NOTE, bytes(8) + b"{}")],
    "gaps of odd reasons": [(NOTE, bytes(8) + b'{"gap": "begin", "reason": [1]}'), (NOTE, bytes(8) + b'{"gap": {}}')],
    "spans of odd types": [
        (SPAN, struct.pack("<I", span) + json.dumps({"label": 5, "first_line": [], "error": {}, "cell_id": 7}).encode())
        for span in range(1, 21)
    ],
    "spans of no UTF-8": [(SPAN, b"\1\0\0\0{\xff}")],
    "a span of a long number": [(SPAN, b"\1\0\0\0" + b'{"execution_count": ' + b"9" * 10000 + b"}")],
    "short records": [(kind, b"\1") for kind in range(9)],
    "nodes in circles": [(NODE, struct.pack("<IIIi", 1, 1, 1, 0))],
    "nodes out of order": [(NODE, struct.pack("<IIIi", 5, 0, 1, 0))],
    "code of huge claims": [(CODE, struct.pack("<IiIII", 1, -1, 2**32 - 1, 2**32 - 1, 2**32 - 1) + b"x")],
    "line tables of nonsense": [
        (CODE, struct.pack("<IiIII", 1, 2**31 - 1, 1, 1, 200) + b"fg" + bytes([0xEF] * 200)),
        (NODE, struct.pack("<IIIi", 1, 0, 1, 2**31 - 1)),
        (NODE, struct.pack("<IIIi", 2, 1, 7, -(2**31))),
    ],
    "libraries out of order": [(LIBRARY, b"\7\0\0\0/lib")],
    "unknown kinds": [(60000, b"future"), (4, b""), (7, b"")],
}


@pytest.mark.parametrize("name", HOSTILE_RECORDS)
def test_hostile_records(name: str, copy: pathlib.Path) -> None:
    (copy / "tables-00000001.bin").write_bytes(table_segment(*HOSTILE_RECORDS[name]))
    read_everything(copy)


@pytest.mark.parametrize("name", ["session.json", "events-00000001.bin", "tables-00000001.bin", "fold.bin"])
@pytest.mark.parametrize("thing", ["directory", "pipe", "endless device", "dangling link", "terabyte of nothing"])
def test_things_that_are_no_files(name: str, thing: str, copy: pathlib.Path) -> None:
    file = copy / name
    file.unlink(missing_ok=True)
    if thing == "directory":
        file.mkdir()
    elif thing == "pipe":
        os.mkfifo(file)
    elif thing == "endless device":
        file.symlink_to("/dev/zero")
    elif thing == "dangling link":
        file.symlink_to("nowhere")
    else:
        file.touch()
        os.truncate(file, 1 << 40)
    # In a process of its own, with little memory: what reads an endless file must not take the tests along.
    script = """
        import resource, sys
        from gpumem_magic.capture.recording import RecordingError, open_recording
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        try:
            print(open_recording(sys.argv[1]).warnings)
        except RecordingError as error:
            print(error)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(copy)],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() != ""


def test_directories_that_are_no_recordings(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name in ("empty", "file", "missing", "x" * 300, "nul\0inside"):
        with pytest.raises(RecordingError):
            open_recording(tmp_path / name)


def test_missing_parts(copy: pathlib.Path) -> None:
    for name in ("events-00000001.bin", "tables-00000001.bin", "history.bin"):
        (copy / name).unlink()
        assert read_everything(copy) is not None


def damaged_history(copy: pathlib.Path, change: Callable[[bytearray], object]) -> tuple[Snapshot, list[str]]:
    """What is read after ``change``, and what is said of it."""
    data = bytearray((copy / "history.bin").read_bytes())
    change(data)
    (copy / "history.bin").write_bytes(data)
    snapshot = read_everything(copy)
    assert snapshot is not None
    snapshot.self_check()
    return snapshot, [warning for warning in snapshot.warnings if warning.startswith("history.bin: ")]


def test_a_row_of_the_history_that_is_damaged(copy: pathlib.Path, sound: pathlib.Path) -> None:
    whole = open_recording(sound).history
    assert whole is not None
    device = 4096 + LEVELS * LEVEL_ROWS * (HOST_DTYPE.itemsize + 4)

    def change(data: bytearray) -> None:
        data[device + 30] ^= 1

    snapshot, said = damaged_history(copy, change)
    assert said == ["history.bin: 1 of its rows are damaged and left out."]
    assert snapshot.history is not None
    assert snapshot.history.tobytes() == whole[1:].tobytes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data.clear(), "cut short within its header"),
        (lambda data: data.__delitem__(slice(5000, None)), "cut short"),
        (lambda data: data.__setitem__(slice(0, 8), b"GPUMEMEV"), "not a segment"),
        (lambda data: data.__setitem__(40, data[40] ^ 1), "header is damaged"),
        (lambda data: (data.__setitem__(8, 2), forge_header(data)), "format version 2"),
        (lambda data: (data.__setitem__(16, 128), forge_header(data)), "sizes that this format version does not have"),
        (
            lambda data: (data.__setitem__(slice(32, 40), b"\xff" * 8), forge_header(data)),
            "more devices than there are",
        ),
    ],
)
def test_a_history_that_is_none(change: Callable[[bytearray], object], told: str, copy: pathlib.Path) -> None:
    snapshot, said = damaged_history(copy, change)
    assert snapshot.history is None
    (warning,) = said
    assert told in warning


def test_a_fold_that_is_foreign(copy: pathlib.Path) -> None:
    (copy / "fold.bin").write_bytes(b"something else entirely")
    snapshot = read_everything(copy)
    assert snapshot is not None
    assert any("fold.bin" in warning for warning in snapshot.warnings)
    assert snapshot.live_bytes > 0


def test_a_home_full_of_other_things(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMEM_HOME", str(tmp_path))
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "session.json").mkdir()
    assert recordings() == []
