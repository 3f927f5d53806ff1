"""A recording in which every name that a user could choose is markup that would be seen if it ran."""

from __future__ import annotations

from tests.analysis.build import GIB, Recording

MARKUP = '<b-planted onclick="hit()"></b-planted><script>window.planted = 1</script>\'"&'


def planted_recording() -> tuple[Recording, int]:
    """The recording, and the id of its cell."""
    recording = Recording((MARKUP, "2GiB"), host=MARKUP, python=MARKUP, driver=MARKUP, degraded=MARKUP)
    with recording.cell(1, MARKUP, label=MARKUP, error=MARKUP, cell_id=MARKUP) as cell:
        recording.alloc(1 * GIB, (f"/home/{MARKUP}.py", MARKUP, 1), library=f"/lib/{MARKUP}.so")
        recording.gap(1, MARKUP)
        with recording.cell(None, label=MARKUP):
            recording.wait(5)
        recording.fail(1, (f"/home/{MARKUP}.py", MARKUP, 2))
    with recording.cell(2, MARKUP, label=MARKUP, cell_id=MARKUP):
        pass
    return recording, cell
