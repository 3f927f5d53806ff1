"""The quickstart notebook says what is true: its numbers, in the kernel, on the page and in the repository."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nbformat import NotebookNode

REPORTS = ("first-report", "leak-report", "numba-report", "last-report")


def outputs(notebook: NotebookNode, cell_id: str) -> list[NotebookNode]:
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return cell.outputs


def printed(notebook: NotebookNode, cell_id: str) -> str:
    """Everything a terminal would show below a cell."""
    texts = [each.get("text") or each.get("data", {}).get("text/plain", "") for each in outputs(notebook, cell_id)]
    return "\n".join(texts)


def numbers(notebook: NotebookNode, cell_id: str) -> dict[str, str]:
    """The large numbers of a report, by name."""
    return dict(re.findall(r"^  (\w+) +(\+?[\d.]+ [KMG]?i?B)   ", printed(notebook, cell_id), re.MULTILINE))


def test_the_first_report(executed: NotebookNode) -> None:
    assert numbers(executed, "first-report") == {"delta": "+64.0 MiB", "peak": "320 MiB", "held": "64.0 MiB"}
    text = printed(executed, "first-report")
    assert re.search(r"In \[4\]:7 .* 8 +256 MiB +256 MiB +0 B", text)
    assert re.search(r"In \[4\]:2 .* 1 +64\.0 MiB +64\.0 MiB +64\.0 MiB", text)


def test_the_leak(executed: NotebookNode) -> None:
    assert numbers(executed, "leak-report") == {"delta": "+100 MiB", "peak": "164 MiB", "held": "100 MiB"}
    stays = printed(executed, "leak-report").partition("What stays")[2]
    assert re.search(r"100 MiB .* 5  In \[5\]:7 forward", stays)


def test_who_holds_it_and_what_freeing_it_would_give(executed: NotebookNode) -> None:
    text = printed(executed, "who-holds")
    assert "164 MiB in 6 pieces: 164 MiB held by notebook" in text
    assert re.search(r"^seen +100 MiB", text, re.MULTILINE)
    assert "This would free 100 MiB that are in use." in printed(executed, "free-dry")


def test_every_byte_has_a_row(executed: NotebookNode) -> None:
    text = printed(executed, "ledger-rows")
    assert re.search(r"not explained +0 B", text)
    assert re.search(r"the device reports +\d+ MiB +100.0 %", text)


def test_numba_frees_late(executed: NotebookNode) -> None:
    found = numbers(executed, "numba-report")
    assert (found["delta"], found["held"]) == ("+128 MiB", "128 MiB")
    assert "12345" in printed(executed, "numba-report")


def test_the_tracker_agrees_with_the_driver(executed: NotebookNode) -> None:
    assert "the tracker saw 104,857,600 bytes, the driver says 104,857,600 bytes" in printed(executed, "track")


def test_every_cell_is_in_the_table(executed: NotebookNode) -> None:
    text = printed(executed, "all-cells")
    assert "+10.0 MiB, +10.0 MiB, +10.0 MiB" in text
    assert len(re.findall(r"^In \[\d+\]", text, re.MULTILINE)) == 15
    assert "recording" in printed(executed, "all-status")


def test_the_killed_process_is_read(executed: NotebookNode) -> None:
    assert "ended with status -9" in printed(executed, "crash")
    assert numbers(executed, "last-report")["live"] == "320 MiB"
    assert "doomed" in printed(executed, "last-report")


def test_no_cell_complains(executed: NotebookNode) -> None:
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", cell.id
            assert output.get("name") != "stderr", f"{cell.id}: {output.text}"


def test_html_keeps_the_reports(executed: NotebookNode) -> None:
    nbconvert = pytest.importorskip("nbconvert")
    page, _ = nbconvert.HTMLExporter().from_notebook_node(executed)
    assert len(re.findall(r'<section[^>]* class="gpumem"', page)) >= len(REPORTS) + 3
    assert page.count("<svg") >= len(REPORTS)
    assert "peak 320 MiB" in page


def test_the_saved_outputs_are_those_of_a_run(quickstart: NotebookNode, executed: NotebookNode) -> None:
    """What people see on the web page of the repository is what they get."""
    for saved, ran in zip(quickstart.cells, executed.cells, strict=True):
        if saved.cell_type == "code":
            assert [each.output_type for each in saved.outputs] == [each.output_type for each in ran.outputs], saved.id
    for name in REPORTS:
        assert numbers(quickstart, name) == numbers(executed, name), name
        assert "simulated GPU" in printed(quickstart, name)


def test_the_saved_outputs_name_no_machine(quickstart: NotebookNode) -> None:
    """Frames of the notebook and of libraries have short names; whole paths would be somebody's home."""
    for cell in quickstart.cells:
        for output in cell.get("outputs", []):
            text = str(output.get("text", "")) + "".join(map(str, output.get("data", {}).values()))
            assert re.findall(r"/(?:home|root|usr|opt|work|Users|tmp/(?!gpumem-|ipykernel_))\b\S*", text) == [], cell.id
