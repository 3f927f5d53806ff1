"""Recordings on disk: where they live, how they are started, and how any process reads one."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pathlib
import stat
import tempfile
import time
from typing import Any

from gpumem_magic import _core
from gpumem_magic.capture.assemble import snapshot_from_tables
from gpumem_magic.capture.event_log import SegmentedEventLog
from gpumem_magic.capture.records import RecordTable
from gpumem_magic.model.snapshot import Device, Process, Snapshot

SESSION_FILE = "session.json"
HISTORY_FILE = "history.bin"
FORMAT = "gpumem_magic recording"
VERSION = 1
_READ_ATTEMPTS = 5


class RecordingError(Exception):
    """A recording cannot be read or written; the message says which, why and what to do."""


def home() -> pathlib.Path:
    """Directory that holds the recordings: ``GPUMEM_HOME``, else one of this user's own under the temp directory."""
    chosen = os.environ.get("GPUMEM_HOME")
    if chosen:
        return pathlib.Path(chosen).expanduser()
    return pathlib.Path(tempfile.gettempdir(), f"gpumem-{os.getuid()}")


def create_directory() -> pathlib.Path:
    """A new, empty directory for one recording, readable by this user only.

    Raises:
        RecordingError: it cannot be made, or the place belongs to somebody else.
    """
    root = home()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_foreign(root)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        for suffix in ["", *(f"-{number}" for number in range(2, 1000))]:
            directory = root / (name + suffix)
            try:
                directory.mkdir(mode=0o700)
            except FileExistsError:
                continue
            return directory
    except OSError as error:
        raise RecordingError(_cannot_write(root, error)) from error
    raise RecordingError(f"{root} holds too many recordings of this process. Delete some of them.")


def _refuse_foreign(root: pathlib.Path) -> None:
    """Another user who made the directory first could plant files in it."""
    status = root.stat()
    if "GPUMEM_HOME" not in os.environ and (status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022):
        raise RecordingError(
            f"{root} belongs to another user or may be written by others. Set GPUMEM_HOME to a directory of your own.",
        )


def _cannot_write(root: pathlib.Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"No recording can be kept in {root} ({reason}). Set GPUMEM_HOME to a directory that you can write."


def write_session(
    directory: pathlib.Path, process: Process, devices: tuple[Device, ...], *, ended: bool = False
) -> None:
    """Say who records. Replaces the file as a whole, so a reader sees the old one or the new one."""
    text = {
        "format": FORMAT,
        "version": VERSION,
        "process": dataclasses.asdict(process),
        "devices": [dataclasses.asdict(device) for device in devices],
        "ended": ended,
    }
    temporary = directory / (SESSION_FILE + ".tmp")
    try:
        temporary.write_text(json.dumps(text, indent=1), encoding="utf-8")
        temporary.replace(directory / SESSION_FILE)
    except OSError as error:
        raise RecordingError(_cannot_write(directory, error)) from error


def recordings() -> list[pathlib.Path]:
    """Directories of this user's recordings, newest last."""
    root = home()
    if not root.is_dir():
        return []
    found = (path for path in root.iterdir() if (path / SESSION_FILE).is_file())
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def last_recording(*, before: pathlib.Path | None = None) -> pathlib.Path:
    """The newest recording other than ``before`` (the one being made now).

    Raises:
        RecordingError: there is none.
    """
    candidates = [path for path in recordings() if path != before]
    if not candidates:
        raise RecordingError(f"There is no earlier recording in {home()}.")
    return candidates[-1]


def open_recording(directory: str | os.PathLike[str]) -> Snapshot:
    """Read a finished, running or killed recording.

    What is damaged is left out and told in the Snapshot's ``warnings``.

    Raises:
        RecordingError: the directory is no recording.
    """
    path = pathlib.Path(directory)
    process, devices, warnings = _read_session(path)
    records = RecordTable()
    warnings += _read_tables(path, records)
    tables = _replay(path)
    history = _read_history(path)
    return snapshot_from_tables(
        tables,
        records,
        SegmentedEventLog(tables["segments"]),
        name=path.name,
        process=process,
        devices=devices,
        warnings=[*warnings, *tables["warnings"], *history["warnings"]],
        history=history,
    )


def _read_history(path: pathlib.Path) -> dict[str, Any]:
    """Memory over time; nothing where the recording has none, such as one without a GPU."""
    file = path / HISTORY_FILE
    if not file.exists():
        return {"rows": b"", "host": b"", "warnings": []}
    found: dict[str, Any] = _core.read_history(str(file))
    return found


def _replay(path: pathlib.Path) -> dict[str, Any]:
    """Replay the events; again when the recorder folded a segment away between our listing and our reading."""
    for _ in range(_READ_ATTEMPTS):
        fold = path / "fold.bin"
        folded = str(fold) if fold.is_file() else ""
        segments = sorted(str(file) for file in path.glob("events-*.bin"))
        tables = _core.replay(segments, folded)
        if all(pathlib.Path(file).is_file() for file in segments):
            break
    return tables


def _read_session(path: pathlib.Path) -> tuple[Process, tuple[Device, ...], list[str]]:
    file = path / SESSION_FILE
    try:
        is_directory = path.is_dir()
    except (OSError, ValueError):  # a name that no file system takes
        is_directory = False
    if not is_directory:
        raise RecordingError(f"{path} is no recording: a recording is a directory with a file {SESSION_FILE}.")
    try:
        text = json.loads(_read_regular(file, _MOST_SESSION_BYTES))
        if not isinstance(text, dict) or text.get("format") != FORMAT:
            raise RecordingError(f"{path} is no recording of gpumem_magic: {SESSION_FILE} says something else.")
        if text.get("version") != VERSION:
            raise RecordingError(
                f"{path} has format version {text.get('version')!r}; this release reads version {VERSION}. "
                "Read it with the release that wrote it.",
            )
        process = _from_fields(Process, text["process"])
        devices = tuple(_from_fields(Device, device) for device in text["devices"])
    except FileNotFoundError:
        raise RecordingError(f"{path} is no recording: it has no file {SESSION_FILE}.") from None
    except OSError as error:
        raise RecordingError(f"{file} cannot be read ({error.strerror or error}).") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Process(host="?", pid=0), (), [f"{SESSION_FILE}: it is damaged ({error}); who recorded is unknown."]
    return process, devices, []


def _from_fields(kind: type[Any], values: dict[str, Any]) -> Any:
    """An instance from JSON, with types checked and fields of later releases ignored."""
    if not isinstance(values, dict):
        raise TypeError(f"{kind.__name__} is {values!r:.40}")
    known = {field.name: field.type for field in dataclasses.fields(kind)}
    plain: dict[str, Any] = {"int": int, "str": str, "bool": bool, "int | None": (int, type(None))}
    for name, value in values.items():
        expected = plain.get(str(known.get(name, "")), object)
        if name in known and not isinstance(value, expected):
            raise TypeError(f"{name} is {value!r}")
    return kind(**{name: value for name, value in values.items() if name in known})


def _read_tables(path: pathlib.Path, records: RecordTable) -> list[str]:
    warnings = []
    for file in sorted(path.glob("tables-*.bin")):
        try:
            data, problem = _table_payload(_read_regular(file, _MOST_TABLE_BYTES))
        except OSError as error:
            data, problem = b"", f"it cannot be read ({error.strerror or error})"
        problem = records.feed(data) or problem
        if problem:
            warnings.append(f"{file.name}: {problem}.")
    return warnings


_MOST_SESSION_BYTES = 1 << 20
_MOST_TABLE_BYTES = (1 << 22) + 4096  # a segment of records is never larger


def _read_regular(file: pathlib.Path, limit: int) -> bytes:
    """The first ``limit`` bytes of a plain file. Raises OSError for anything else: a pipe or a device may never end."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        return opened.read(limit)


def _table_payload(data: bytes) -> tuple[bytes, str]:
    """Committed payload of a table segment, and what is wrong with it."""
    size = _core.table_segment_bytes(data)
    if size < 0:
        return b"", "it is not a table segment of this format version, or its header is damaged"
    payload = data[4096 : 4096 + size]
    return payload, "" if len(payload) == size else f"it is cut short by {size - len(payload)} bytes"
