"""Brackets every cell run, and shows the report of those that asked for one."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import time
from typing import TYPE_CHECKING, Any

import IPython
from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

from gpumem_magic.capture.block_watch import BlockWatch
from gpumem_magic.magics.arguments import MagicHelpShown
from gpumem_magic.magics.cell_holders import report_with_holders
from gpumem_magic.magics.cell_line import LINE_MARK, MARK, cell_options
from gpumem_magic.magics.show import show
from gpumem_magic.magics.tensor_runs import TensorRuns
from gpumem_magic.model.units import format_size
from gpumem_magic.views.shown import shown_cell_report

if TYPE_CHECKING:
    import argparse

    from IPython.core.interactiveshell import ExecutionInfo

    from gpumem_magic.analysis.cell_report import CellReport
    from gpumem_magic.analysis.tensor_sites import TensorSites
    from gpumem_magic.capture.frameworks.torch_history import TensorRecorder
    from gpumem_magic.magics.live_views import LiveView, LiveViews
    from gpumem_magic.magics.out_of_memory import OutOfMemoryCards
    from gpumem_magic.model.cell_blocks import CellBlocks
    from gpumem_magic.session import Session


class GpuMemoryAssertionError(AssertionError):
    """A cell used more GPU memory, or kept more, than its ``%%gpumem`` line allows."""


@dataclasses.dataclass(slots=True)
class _Run:
    span: int
    options: argparse.Namespace | None
    description: dict[str, Any]
    live: LiveView | None = None
    pools_before: int | None = None  # what the watch of blocks wants to know afterwards
    tensors: TensorRecorder | None = None


class CellRuns:
    """Hooks into IPython's ``pre_run_cell`` and ``post_run_cell``. Runs may be nested (``%run``, ``run_cell``)."""

    def __init__(
        self, shell: InteractiveShell, session: Session, live_views: LiveViews, cards: OutOfMemoryCards
    ) -> None:
        self._shell = shell
        self._cards = cards
        self._session = session
        self._live_views = live_views
        self._runs: list[_Run] = []
        self._block_watch = BlockWatch()
        self.tensors = TensorRuns(session)

    @property
    def is_running(self) -> bool:
        """True while a cell runs."""
        return bool(self._runs)

    @property
    def blocks(self) -> CellBlocks:
        """Which cell the blocks in frameworks' pools are from."""
        return self._block_watch.told()

    def install(self) -> None:
        self._shell.events.register("pre_run_cell", self._before)
        self._shell.events.register("post_run_cell", self._after)

    def join(self) -> None:
        """Open spans for the cells that are running already: the one with ``%load_ext`` in it has no other begin."""
        if self._runs or self._session.state == "off":
            return
        for result, source_file in _running_cells():
            assert result.info is not None, "a running cell says what it is"
            description = self._description(result.info, result.execution_count, source_file)
            self._runs.append(_Run(self._session.open_span(**description), None, description))

    def remove(self) -> None:
        """Let go of IPython. A cell that is running (the one with ``%unload_ext`` in it) is closed."""
        for event, hook in (("pre_run_cell", self._before), ("post_run_cell", self._after)):
            if hook in self._shell.events.callbacks[event]:
                self._shell.events.unregister(event, hook)
        while self._runs:
            run = self._runs.pop()
            self._session.close_span(run.span, **run.description)
            self.tensors.end(run.tensors)

    def _before(self, info: ExecutionInfo) -> None:
        if self._session.state == "off":
            return
        raw = str(info.raw_cell or "")
        if not self._runs:
            self._cards.cell_begins(time.monotonic_ns(), only_asks=only_asks(raw))
        try:
            options = cell_options(raw)
        except (UsageError, MagicHelpShown):
            options = None  # the cell does not run: the input transformer has said why
        description = self._describe(raw, info)
        is_live = options is not None and options.live and self._live_views.is_notebook()
        if is_live:
            self._live_views.prepare()
        before = self._look_before(asked=options is not None)
        run = _Run(self._session.open_span(**description), options, description, pools_before=before)
        self._runs.append(run)
        if is_live:
            run.live = self._live_views.show_cell(run.span)
        run.tensors = self.tensors.begin(options)

    def _look_before(self, *, asked: bool) -> int | None:
        """Look at the pools of frameworks, before cells that are nested in others only when they are reported."""
        if self._runs and not asked:
            return None
        return self._block_watch.before(self._runs[-1].span if self._runs else 0, asked=asked)

    def _describe(self, raw: str, info: ExecutionInfo) -> dict[str, Any]:
        count = None if self._runs else self._shell.execution_count - _counted_already(info)
        return self._description(info, count, self._source_file(info, raw, count))

    def _description(self, info: ExecutionInfo, count: int | None, source_file: str) -> dict[str, Any]:
        nested = bool(self._runs)
        return {
            "label": "nested cell" if nested else f"In [{count}]",
            "first_line": first_line(str(info.raw_cell or "")),
            "cell_id": getattr(info, "cell_id", None),
            "execution_count": None if nested else count,
            "source_file": source_file,
        }

    def _source_file(self, info: ExecutionInfo, raw: str, count: int | None) -> str:
        """The file name that the cell's code objects will carry, so that their lines can be called In [7]:3."""
        try:
            # Older IPythons do not hand the translation over.
            transformed = getattr(info, "transformed_cell", None) or self._shell.transform_cell(raw)
            return str(self._shell.compile.get_code_name(raw, transformed, count or 0))
        except Exception:  # noqa: BLE001  (a cell that IPython cannot translate has no code objects)
            return ""

    def _after(self, result: ExecutionResult | None) -> None:
        if not self._runs:
            return
        run = self._runs.pop()
        try:
            self._complete(run, result)
            self._session.close_span(run.span, **run.description)
        finally:
            history = self.tensors.end(run.tensors)  # it may take a while to read, which is not the cell's time
        with contextlib.suppress(KeyboardInterrupt):  # then only the blocks of this cell are not known
            self._block_watch.after(run.span, run.pools_before)
        tensors = self.tensors.answer(history, run.description["label"])
        if not self._runs:
            self._session.check()
            self._live_views.cell_ended()
            error = None if result is None else result.error_in_exec
            if error is not None:
                self._cards.cell_died(run.span, error)
        try:
            if run.options is not None and (result is None or result.error_before_exec is None):
                self._report(run, result, tensors)
        finally:
            if run.live is not None:
                run.live.close()  # if the report did not take its place

    def _complete(self, run: _Run, result: ExecutionResult | None) -> None:
        error = None if result is None else result.error_in_exec or result.error_before_exec
        if error is not None:
            run.description["error"] = type(error).__name__
        if result is not None and result.execution_count is not None:
            # Only now is it certain: IPython may have counted on before pre_run_cell was called.
            run.description["execution_count"] = result.execution_count
            run.description["label"] = f"In [{result.execution_count}]"

    def _report(self, run: _Run, result: ExecutionResult | None, tensors: TensorSites | None) -> None:
        options = run.options
        assert options is not None, "only runs with options are reported"
        try:
            report = self._session.report(run.span, minimum_bytes=options.min, depth=options.depth)
        except (RuntimeError, KeyError):
            print("The recording ended inside this cell, so there is no report on it.")  # noqa: T201  (instead of it)
            return
        if options.assert_no_leak:
            report = report_with_holders(report, self._session, self._shell, self.blocks)
        complaint = broken_promise(report, options)
        is_shown = bool(run.live is not None or not options.quiet or complaint)
        if is_shown or options.save:
            if not options.assert_no_leak:
                report = report_with_holders(report, self._session, self._shell, self.blocks)
            touched = [change.device.ordinal for change in report.devices]
            report = dataclasses.replace(report, ledger=self._session.ledger(touched))
        answer = shown_cell_report(dataclasses.replace(report, tensors=tensors))
        if options.save:
            self._shell.user_ns[options.save] = answer
        if run.live is not None:
            run.live.close(instead=answer._repr_mimebundle_())
        elif is_shown:
            show(answer)
        if complaint and result is not None and result.error_in_exec is None:
            self._fail(result, complaint)

    def _fail(self, result: ExecutionResult, complaint: str) -> None:
        error = GpuMemoryAssertionError(complaint)
        result.error_in_exec = error
        self._shell.showtraceback((GpuMemoryAssertionError, error, None))


def _running_cells() -> list[tuple[ExecutionResult, str]]:
    """The cells that this thread is in the middle of, outermost first, each with the file name of its code.

    IPython tells nobody who asks later, so its own frames are read; one that keeps other names there has no such cells.
    """
    found = []
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is InteractiveShell.run_cell_async.__code__:
            result, name = frame.f_locals.get("result"), frame.f_locals.get("cell_name")
            if isinstance(result, ExecutionResult) and result.info is not None and not result.info.silent:
                found.append((result, str(name or "")))
        frame = frame.f_back
    return found[::-1]


def _counted_already(info: ExecutionInfo) -> bool:
    """Since IPython 9.8 the counter moves on before ``pre_run_cell``, for cells that go into the history."""
    return bool(info.store_history) and IPython.version_info[:2] >= (9, 8)


def first_line(raw: str) -> str:
    """The first line of a cell that says something: no magic of ours, no comment, not empty."""
    lines = [line.strip() for line in raw.splitlines()]
    said = [line for line in lines if line and not line.startswith(("#", MARK))]
    return said[0][:200] if said else ""


def only_asks(raw: str) -> bool:
    """Whether a cell has nothing but ``%gpumem`` lines in it."""
    lines = [line.strip() for line in raw.splitlines() if line.strip()]
    return bool(lines) and all(line.split()[0] == LINE_MARK for line in lines)


def broken_promise(report: CellReport, options: argparse.Namespace) -> str:
    """What the cell did against its ``--assert`` options; "" when it kept to them."""
    above = sum(max(change.peak_bytes - change.begin_bytes, 0) for change in report.devices)
    if options.assert_peak is not None and above > options.assert_peak:
        return (
            f"the cell's peak was {format_size(above)} above what was live before it; "
            f"--assert-peak allows {format_size(options.assert_peak)}."
        )
    left = _left_bytes(report)
    if options.assert_no_leak and left > 0:
        rows = [row for row in report.stays if row.layer == 0]
        most = f", most of it from {rows[0].where}" if rows else ""
        return f"{format_size(left)} allocated in this cell is still live{most} (--assert-no-leak)."
    return ""


def _left_bytes(report: CellReport) -> int:
    """What of the cell is in use after it. What a framework keeps for later, or frees later, is in no use."""
    if report.holders is None:  # nothing was found to look for
        return 0
    return report.held_bytes if report.holders.problem else report.holders.bytes
