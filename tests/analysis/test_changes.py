"""Live bytes reconstructed from events alone agree with the ledger, whatever happens."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpumem_magic.analysis.cell_report import cell_report
from gpumem_magic.analysis.changes import changes
from gpumem_magic.model.events import EVENT_DTYPE, EventFlag, Kind, Layer
from tests.analysis.build import Recording

BIRTHS = [Kind.ALLOC, Kind.ALLOC_ASYNC, Kind.ALLOC_MANAGED, Kind.ALLOC_HOST, Kind.IMPORT_IPC, Kind.CREATE_ARRAY]
DEATHS = [Kind.FREE, Kind.FREE_ASYNC, Kind.FREE_HOST, Kind.CLOSE_IPC, Kind.DESTROY_ARRAY, Kind.ABSENT]

births = st.tuples(
    st.sampled_from(BIRTHS),
    st.integers(0, 4),
    st.integers(1, 1000),
    st.integers(0, 1),
    st.sampled_from([0, 0, EventFlag.REUSED]),
)
deaths = st.tuples(
    st.sampled_from(DEATHS), st.integers(0, 4), st.just(0), st.integers(0, 1), st.sampled_from([0, 0, 4])
)
contexts = st.tuples(st.just(Kind.CONTEXT_DESTROY), st.just(0), st.just(0), st.integers(0, 1), st.just(0))
streams = st.lists(st.one_of(births, deaths, deaths, contexts), max_size=40)


def play(recording: Recording, stream: list[tuple[Kind, int, int, int, int]]) -> None:
    for kind, address, size, device, flags in stream:
        # One context per device, as the driver has them: destroying it can only end memory of that device.
        recording.event(kind, address=address, size=size, device=device, context=device, flags=flags)


@settings(max_examples=400, deadline=None)
@given(streams)
def test_sums_are_the_meters(stream: list[tuple[Kind, int, int, int, int]]) -> None:
    recording = Recording(("A", None), ("B", None))
    play(recording, stream)
    snapshot = recording.snapshot()
    found = changes(snapshot.events.between(0, snapshot.time_ns))
    # What a context takes with it is told for the device layer only.
    complete = Kind.CONTEXT_DESTROY not in {kind for kind, *_ in stream}
    for meter in snapshot.meters[complete | (snapshot.meters["layer"] == Layer.DEVICE)]:
        mine = found[(found["device"] == meter["device"]) & (found["layer"] == meter["layer"])]
        total = np.concatenate(([0], np.cumsum(mine["delta"])))
        assert total[-1] == meter["live_bytes"]
        assert total.max() == meter["peak_bytes"]


@settings(max_examples=200, deadline=None)
@given(streams, streams)
def test_a_cell_is_exact_whatever_was_there_before(
    before: list[tuple[Kind, int, int, int, int]], inside: list[tuple[Kind, int, int, int, int]]
) -> None:
    recording = Recording(("A", None), ("B", None))
    play(recording, before)
    with recording.cell(1) as cell:
        play(recording, inside)
    report = cell_report(recording.snapshot(), cell)
    assert report.notes == ()
    for device in report.devices:
        assert device.timeline is not None
        device.timeline.self_check()
        ends = (device.timeline.live_bytes[0], device.timeline.live_bytes[-1], device.timeline.peak_bytes)
        assert ends == (device.begin_bytes, device.end_bytes, device.peak_bytes)


def test_no_events_no_changes() -> None:
    assert len(changes(np.zeros(0, EVENT_DTYPE))) == 0


def test_several_physicals_unmapped_at_once() -> None:
    recording = Recording()
    for handle in (1, 2):
        recording.event(Kind.CREATE_PHYSICAL, address=handle, size=100 * handle)
        recording.event(Kind.MAP, address=0x1000 * handle, size=0x1000, handle=handle)
        recording.event(Kind.RELEASE_PHYSICAL, address=handle)
    recording.event(Kind.UNMAP, address=0x1000, size=0x2000)
    snapshot = recording.snapshot()
    assert changes(snapshot.events.between(0, snapshot.time_ns))["delta"].tolist() == [100, 200, -300]


def test_a_second_import_of_the_same_memory_adds_a_reference_only() -> None:
    recording = Recording()
    for _ in range(2):
        recording.event(Kind.IMPORT_IPC, address=0x1000, size=50)
    for _ in range(2):
        recording.event(Kind.CLOSE_IPC, address=0x1000)
    snapshot = recording.snapshot()
    assert changes(snapshot.events.between(0, snapshot.time_ns))["delta"].tolist() == [50, -50]
