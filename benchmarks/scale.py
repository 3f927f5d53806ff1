"""Ten million events: size of the recording, memory of who records and who opens it, time to open.

``python -m benchmarks.scale [--events N]``. The recorder and the reader are processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import psutil

MIB = 1 << 20


def resident_mib() -> float:
    """Resident memory of this process, MiB."""
    return float(psutil.Process().memory_info().rss / MIB)


def record(events: int, live: int) -> None:
    """Make ``events`` allocations and frees, ``live`` of them alive at any time, and say what it took."""
    from cuda.bindings import driver as cuda  # noqa: PLC0415

    from benchmarks.harness import prepare_device, print_environment  # noqa: PLC0415
    from gpumem_magic.session import Session  # noqa: PLC0415

    print_environment(prepare_device())
    session = Session(budget_bytes=1 << 40)
    session.start()
    pointers = [cuda.cuMemAllocAsync(1024, 0)[1] for _ in range(live)]
    base = resident_mib()
    highest = base
    begin = time.perf_counter()
    for _ in range(10):
        # Ten rounds, so that memory is looked at on the way and not only at the end.
        for _ in range(events // 20):
            _, pointer = cuda.cuMemAllocAsync(1024, 0)
            cuda.cuMemFreeAsync(pointer, 0)
        highest = max(highest, resident_mib())
    seconds = time.perf_counter() - begin
    del pointers
    directory = session.directory
    session.stop()
    assert directory is not None, "the recording was not written to disk"
    size = sum(file.stat().st_size for file in directory.iterdir())
    print(json.dumps({"directory": str(directory), "seconds": seconds, "grown_mib": highest - base, "bytes": size}))


def read(directory: str) -> None:
    """Open a recording and say what it took."""
    from gpumem_magic.capture.recording import open_recording  # noqa: PLC0415

    base = resident_mib()
    begin = time.perf_counter()
    snapshot = open_recording(directory)
    seconds = time.perf_counter() - begin
    snapshot.self_check()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "grown_mib": resident_mib() - base,
                "resident_mib": resident_mib(),
                "events": len(snapshot.events),
                "live": len(snapshot.allocations),
                "warnings": snapshot.warnings,
            },
        ),
    )


def _in_child(*arguments: str, home: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", *arguments],
        env={**os.environ, "GPUMEM_HOME": home},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    *said, last = done.stdout.splitlines()
    print("\n".join(said), end="\n" if said else "")
    result: dict[str, object] = json.loads(last)
    return result


def main() -> None:
    """Record in one process, open in another, print both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--live", type=int, default=1000)
    parser.add_argument("--record", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.events, arguments.live)
    elif arguments.read:
        read(arguments.read)
    else:
        with tempfile.TemporaryDirectory() as home:
            made = _in_child(
                "--record",
                "--events",
                str(arguments.events),
                "--live",
                str(arguments.live),
                home=home,
            )
            opened = _in_child("--read", str(made["directory"]), home=home)
            _print(arguments.events, made, opened, pathlib.Path(str(made["directory"])))


def _print(events: int, made: dict[str, object], opened: dict[str, object], directory: pathlib.Path) -> None:
    size = float(str(made["bytes"]))
    print(
        f"recorded {events:,} events in {made['seconds']:.1f} s: {events / float(str(made['seconds'])):,.0f} events/s"
    )
    print(f"recorder grew by {made['grown_mib']:.1f} MiB")
    print(
        f"recording: {size / MIB:.0f} MiB in {sum(1 for _ in directory.iterdir())} files, "
        f"{size / events:.2f} bytes an event"
    )
    print(
        f"opened in {opened['seconds']:.2f} s, grew by {opened['grown_mib']:.0f} MiB "
        f"to {opened['resident_mib']:.0f} MiB"
    )
    print(f"read back {opened['events']:,} events, {opened['live']:,} live, warnings: {opened['warnings'] or 'none'}")


if __name__ == "__main__":
    main()
