"""Verbs about memory over time, in a terminal and in a kernel without a page."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

import pytest

from gpumem_magic import api
from gpumem_magic.magics.arguments import line_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from IPython.core.interactiveshell import InteractiveShell

    from gpumem_magic.views.dashboard.dashboard import Dashboard
    from tests.magics.conftest import Notebook

MIB = 1 << 20
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def kernel(shell: InteractiveShell, notebook: Notebook) -> Iterator[Notebook]:
    """A notebook whose shell has a kernel; nobody listens to its widgets."""
    shell.kernel = object()
    yield notebook
    del shell.kernel


def dashboard(notebook: Notebook) -> Dashboard | None:
    return notebook.shell._gpumem_magics.live_views.dashboard


def dashboards() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gpumem-dashboard"]


# ---- in a terminal ----


def test_a_terminal_gets_a_panel_of_text(notebook: Notebook) -> None:
    notebook.run(f"kept = alloc({96 * MIB})")
    text = notebook.run("%gpumem")
    assert "GPU 0" in text
    assert "96.0 MiB" in text
    assert re.search("[▁▂▃▄▅▆▇█]", text)
    assert dashboards() == []


def test_a_timeline_is_a_picture_in_both_forms(notebook: Notebook) -> None:
    notebook.run(f"free(alloc({512 * MIB})); kept = alloc({64 * MIB})")
    time.sleep(0.3)
    text = notebook.run("%gpumem timeline --window 30s --devices 0")
    assert "GPU 0" in text
    assert "GPU 1" not in text
    assert "<svg" in notebook.html
    assert "64.0 MiB" in notebook.html


def test_a_mark_is_in_the_recording(notebook: Notebook) -> None:
    notebook.run("%gpumem mark epoch 1 begins")
    assert [mark.name for mark in api.snapshot().marks] == ["epoch 1 begins"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("%gpumem watch --window soon", "'soon' is not a length of time"),
        ("%gpumem watch --rate 1000", "'1000' is not a number of samples a second from 1 to 100"),
        ("%gpumem watch --devices a,b", "'a,b' is not a list of GPU numbers such as 0,1"),
        ("%gpumem timeline --devices 7", "no device 7"),
        ("%gpumem close", "No dashboard is open"),
        ("%gpumem mark", "name"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(notebook: Notebook, line: str, says: str) -> None:
    assert says in notebook.run(line, fails=True)
    assert "Traceback" not in notebook.output.stderr


def test_without_a_recording_the_verbs_say_so(notebook: Notebook) -> None:
    notebook.run("%gpumem off")
    for line in ("%gpumem", "%gpumem timeline", "%gpumem mark x"):
        assert "Nothing is being recorded" in notebook.run(line, fails=True)


def test_the_rate_of_samples(notebook: Notebook) -> None:
    notebook.run("%gpumem watch --rate 50")
    first = api.session().history().next_index
    time.sleep(1)
    assert api.session().history().next_index - first > 12  # at the usual rate, ten
    notebook.run("%gpumem watch --rate 10")


def test_every_verb_is_in_the_help() -> None:
    text = line_parser().format_help()
    for verb in ("watch", "close", "timeline", "mark", "status", "cells"):
        assert re.search(rf"^ +{verb} ", text, re.MULTILINE), verb


# ---- in a kernel ----


def test_a_notebook_gets_a_still_picture_and_a_widget(kernel: Notebook) -> None:
    kernel.run(f"kept = alloc({96 * MIB})")
    kernel.run("%gpumem")
    still, live = (output.data for output in kernel.output.outputs)
    assert "<svg" in still["text/html"]
    assert "96.0 MiB" in still["text/plain"]
    assert set(live) == {WIDGET, "text/plain"}
    opened = dashboard(kernel)
    assert opened is not None
    assert opened.is_alive
    token = opened._config()["token"]
    assert f'class="gpumem-{token}"' in still["text/html"]


def test_a_second_time_the_same_dashboard_is_shown(kernel: Notebook) -> None:
    kernel.run("%gpumem")
    first = dashboard(kernel)
    kernel.run("%gpumem")
    assert dashboard(kernel) is first
    assert len(dashboards()) == 1
    assert kernel.output.outputs[1].data[WIDGET]["model_id"] == first.widget.model_id


def test_widgets_that_somebody_closed_are_not_shown_again(kernel: Notebook) -> None:
    kernel.run("%gpumem")
    first = dashboard(kernel)
    kernel.run("import ipywidgets; ipywidgets.Widget.close_all(); ipywidgets.Widget.close_all()")
    kernel.run("%gpumem")
    assert dashboard(kernel) is not first
    assert dashboard(kernel).widget.comm is not None
    deadline = time.monotonic() + 30
    while len(dashboards()) > 1:
        assert time.monotonic() < deadline, "the first one's thread goes on"
        time.sleep(0.05)


def test_closing_ends_it_and_leaves_the_picture(kernel: Notebook) -> None:
    kernel.run("%gpumem")
    opened = dashboard(kernel)
    kernel.run("%gpumem close")
    assert opened.is_closed
    assert dashboards() == []
    assert dashboard(kernel) is None
    shown = [output.data for output in kernel.output.outputs]
    assert "<svg" in shown[0]["text/html"]
    assert "The live view was closed at" in shown[1]["text/plain"]


def test_the_still_picture_follows_the_cells(kernel: Notebook) -> None:
    kernel.run("%gpumem")
    kernel.shell._gpumem_magics.live_views._open._still_due = 0
    kernel.run(f"kept = alloc({224 * MIB})")
    (still,) = (output.data["text/plain"] for output in kernel.output.outputs)
    assert "224 MiB" in still


def test_settings_go_to_the_open_dashboard(kernel: Notebook) -> None:
    kernel.run("%gpumem")
    opened = dashboard(kernel)
    kernel.run("%gpumem watch --window 5min --devices 1 --pause")
    assert kernel.output.outputs == []
    assert opened._settings == {"number": 1, "window_ms": 300_000.0, "devices": [1], "paused": True}
    kernel.run("%gpumem watch --resume --clear-cells")
    assert opened._settings["paused"] is False


def test_a_cell_that_is_watched_live_ends_in_its_report(kernel: Notebook) -> None:
    kernel.run(f"%%gpumem --live\nkept = alloc({96 * MIB})\nfree(alloc({32 * MIB}))")
    shown = [output.data for output in kernel.output.outputs]
    assert set(shown[0]) == {WIDGET, "text/plain"}
    assert "peak" in shown[-1]["text/plain"]
    assert "128 MiB" in shown[-1]["text/plain"]
    assert dashboards() == []


def test_a_watched_cell_that_fails_has_its_report_too(kernel: Notebook) -> None:
    kernel.run(f"%%gpumem --live\nkept = alloc({96 * MIB})\n1 / 0", fails=True)
    assert "ZeroDivisionError" in kernel.output.outputs[-1].data["text/plain"]
    assert dashboards() == []


def test_unloading_within_a_watched_cell_leaves_no_thread(kernel: Notebook) -> None:
    kernel.run("%%gpumem --live\n%unload_ext gpumem_magic")
    assert dashboards() == []


def test_a_watched_cell_whose_view_was_closed_has_its_report_too(kernel: Notebook) -> None:
    kernel.run("%gpumem")
    kernel.run(f"%%gpumem --live\n%gpumem close\nkept = alloc({96 * MIB})")
    assert "96.0 MiB" in kernel.output.outputs[-1].data["text/plain"]
    assert dashboards() == []


def test_in_a_terminal_a_watched_cell_is_reported_at_its_end(notebook: Notebook) -> None:
    text = notebook.run(f"%%gpumem --live\nkept = alloc({96 * MIB})")
    assert "held" in text
    assert dashboards() == []


def test_unloading_closes_it(kernel: Notebook) -> None:
    kernel.run("%gpumem")
    opened = dashboard(kernel)
    kernel.run("%unload_ext gpumem_magic")
    assert opened.is_closed
    assert dashboards() == []
    assert opened.widget.comm is None


def test_turning_tracking_off_leaves_it_open(kernel: Notebook) -> None:
    kernel.run("%gpumem")
    kernel.run("%gpumem off")
    opened = dashboard(kernel)
    time.sleep(0.5)
    assert opened.is_alive
    assert opened.problem == ""
    kernel.run("%gpumem on")
    time.sleep(0.5)
    assert opened.problem == ""


def test_a_second_recording_takes_the_place_of_the_first(kernel: Notebook) -> None:
    kernel.run(f"kept = alloc({96 * MIB})")
    kernel.run("%gpumem")
    opened = dashboard(kernel)
    time.sleep(1.5)
    kernel.run("%gpumem off")
    time.sleep(0.5)
    kernel.run("%gpumem on")
    kernel.run(f"more = alloc({32 * MIB})")
    deadline = time.monotonic() + 30
    while [row["live"] for row in opened.widget._whole()[0]["panels"][0]["rows"].values()] != [32 * MIB]:
        assert time.monotonic() < deadline, "the table is still that of the first recording"
        time.sleep(0.05)
    assert api.snapshot().history is not None
    time.sleep(0.5)
    state, _ = opened.widget._whole()
    assert [span["label"] for span in state["spans"]][-1] == f"[{kernel.shell.execution_count - 1}]"
    assert len(state["spans"]) == len(api.snapshot().cells)


@pytest.mark.parametrize("then", ["%gpumem close", "%unload_ext gpumem_magic", "1 + 1"])
def test_while_tracking_is_off_the_last_picture_stays(kernel: Notebook, then: str) -> None:
    kernel.run("%gpumem")
    opened = kernel.shell._gpumem_magics.live_views._open
    opened._still_due = 0
    kernel.run("%gpumem off")
    assert "Traceback" not in kernel.output.stdout + kernel.output.stderr
    kernel.run(then)
    assert "Traceback" not in kernel.output.stdout + kernel.output.stderr
    opened.dashboard.clear_cells()  # as a page may ask
    if then != "1 + 1":
        assert dashboards() == []


@pytest.mark.parametrize("ending", ["%gpumem off", "%gpumem off\n%gpumem on"])
def test_a_recording_that_ends_inside_a_watched_cell(kernel: Notebook, ending: str) -> None:
    said = kernel.run(f"%%gpumem --live\nkept = alloc({MIB})\n{ending}")
    assert "The recording ended inside this cell, so there is no report on it." in said
    assert "Traceback" not in said
    assert dashboards() == []
    kernel.run("%gpumem on")


def test_a_watched_cell_that_cannot_be_parsed_leaves_nothing(kernel: Notebook) -> None:
    kernel.run("%%gpumem --live\nthis is no Python", fails=True)
    assert dashboards() == []
