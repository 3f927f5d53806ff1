"""The ``%gpumem`` and ``%%gpumem`` magics."""

from __future__ import annotations

import shlex
import traceback
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class

from gpumem_magic import api
from gpumem_magic.analysis.overview import overview
from gpumem_magic.analysis.recording_report import recording_report
from gpumem_magic.capture import recording
from gpumem_magic.magics.arguments import MagicHelpShown, line_parser
from gpumem_magic.magics.cell_holders import table_with_growth
from gpumem_magic.magics.cell_line import MarkHider, parse
from gpumem_magic.magics.cell_runs import CellRuns
from gpumem_magic.magics.live import SessionSource
from gpumem_magic.magics.live_views import LiveViews
from gpumem_magic.magics.out_of_memory import OutOfMemoryCards
from gpumem_magic.magics.show import SearchProgress, show
from gpumem_magic.magics.status_rows import status_rows
from gpumem_magic.verbs.free import CannotFreeError, free
from gpumem_magic.verbs.names import NameNotFoundError
from gpumem_magic.verbs.who import who
from gpumem_magic.views.cell_table import render_cell_table
from gpumem_magic.views.overview import render_overview, render_timeline
from gpumem_magic.views.recording_report import render_recording_report
from gpumem_magic.views.shown import Shown, shown_byte_ledger, shown_holders, shown_release
from gpumem_magic.views.status import render_status
from gpumem_magic.views.tensor_sites import render_tensors

if TYPE_CHECKING:
    import argparse

    from IPython.core.interactiveshell import InteractiveShell


@magics_class
class GpuMemoryMagics(Magics):
    """Holds everything that loading the extension put into IPython."""

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.session = api.session()
        self.live_views = LiveViews(
            SessionSource(self.session, lambda: self.cell_runs.is_running), lambda: is_notebook(shell)
        )
        self.cards = OutOfMemoryCards(shell, self.session, lambda: is_notebook(shell))
        self.cell_runs = CellRuns(shell, self.session, self.live_views, self.cards)
        self.mark_hider = MarkHider(lambda: self.cell_runs.is_running)

    def install(self) -> None:
        """Hook into the shell and start tracking."""
        self.shell.register_magics(self)
        self.shell.input_transformers_cleanup.insert(0, self.mark_hider)
        self.cell_runs.install()
        self.session.start()
        self.session.progress = SearchProgress()
        self.cell_runs.join()

    def remove(self) -> None:
        """Undo ``install``."""
        self.live_views.close()
        self.cell_runs.remove()
        self.cards.remove()
        if self.mark_hider in self.shell.input_transformers_cleanup:
            self.shell.input_transformers_cleanup.remove(self.mark_hider)
        for kind in ("line", "cell"):
            self.shell.magics_manager.magics[kind].pop("gpumem", None)
        self.session.progress = None
        self.session.stop()

    @line_cell_magic
    def gpumem(self, line: str, cell: str | None = None) -> None:
        """GPU memory: ``%gpumem --help`` lists the verbs, ``%%gpumem --help`` the options for a cell."""
        try:
            if cell is not None:
                self._run_inside(line, cell)
                return
            arguments = line_parser().parse_args(words(line))
        except MagicHelpShown:
            return
        except ValueError as error:
            raise UsageError(f"%gpumem {line}: {error}.") from None
        getattr(self, f"_{arguments.verb or 'watch'}")(arguments)

    def _run_inside(self, line: str, cell: str) -> None:
        """``%%gpumem`` below another cell magic: IPython hands us text, and we hand it back as a cell."""
        parse(line)
        with self.mark_hider.invited():
            result = self.shell.run_cell(f"%%gpumem {line}\n{cell}", store_history=False)
        result.raise_error()

    def _watch(self, arguments: argparse.Namespace) -> None:
        if self.session.state == "off":
            raise UsageError("Nothing is being recorded. %gpumem on begins a recording.")
        if self.session.state == "no GPU":
            self._status(arguments)  # it says what is missing and what to do
            return
        settings = _settings(arguments)
        if getattr(arguments, "rate", None):
            self.session.sampling_rate(arguments.rate)
        if not self.live_views.is_notebook():
            show(Shown(None, render_overview(overview(self.session.snapshot())), lambda _: ()))
            return
        clears = getattr(arguments, "clear_cells", False)
        dashboard = self.live_views.dashboard
        if dashboard is None or not (settings or clears):
            dashboard = self.live_views.show()
        if settings:
            dashboard.set(**settings)
        if clears:
            dashboard.clear_cells()

    def _close(self, _arguments: argparse.Namespace) -> None:
        if not self.live_views.close():
            raise UsageError("No dashboard is open. %gpumem opens one.")

    def _timeline(self, arguments: argparse.Namespace) -> None:
        try:
            snapshot = self.session.snapshot()
            found = overview(snapshot, window_s=arguments.window or None, devices=arguments.devices)
        except (RuntimeError, ValueError) as error:
            raise _refusal(error) from None
        show(Shown(None, render_timeline(found), lambda _: ()))

    def _mark(self, arguments: argparse.Namespace) -> None:
        try:
            self.session.mark(" ".join(arguments.name))
        except RuntimeError as error:
            raise _refusal(error) from None
        if self.live_views.dashboard is not None:
            self.live_views.dashboard.look_again()

    def _status(self, _arguments: argparse.Namespace) -> None:
        show(Shown(None, render_status(status_rows(self.session.status())), lambda _: ()))

    def _on(self, arguments: argparse.Namespace) -> None:
        self.session.start() if self.session.state == "off" else self.session.resume()
        self.cell_runs.join()
        if arguments.tensors is not None:
            self.cell_runs.tensors.every_cell = arguments.tensors
        self._status(arguments)

    def _tensors(self, _arguments: argparse.Namespace) -> None:
        if self.cell_runs.tensors.latest is None:
            raise UsageError("No cell was recorded with its tensors. Put %%gpumem --tensors on top of one.")
        label, found = self.cell_runs.tensors.latest
        show(Shown(found, render_tensors(found, cell=label), lambda each: each.all_rows()))

    def _off(self, arguments: argparse.Namespace) -> None:
        self.cell_runs.tensors.every_cell = False
        self.session.stop()
        self._status(arguments)

    def _pause(self, arguments: argparse.Namespace) -> None:
        self.session.pause()
        self._status(arguments)

    def _cells(self, _arguments: argparse.Namespace) -> None:
        try:
            table = table_with_growth(self.session, self.shell, self.cell_runs.blocks)
        except RuntimeError as error:
            raise _refusal(error) from None
        show(Shown(table, render_cell_table(table), lambda each: each.runs))

    def _ledger(self, arguments: argparse.Namespace) -> None:
        try:
            found = self.session.ledger(arguments.devices)
        except (RuntimeError, ValueError) as error:
            raise _refusal(error) from None
        show(shown_byte_ledger(found))

    def _who(self, arguments: argparse.Namespace) -> None:
        try:
            title, found = who(self.session, arguments.target, shell=self.shell, top=arguments.top)
        except (RuntimeError, NameNotFoundError) as error:
            raise _refusal(error) from None
        show(shown_holders(found, title))

    def _free(self, arguments: argparse.Namespace) -> None:
        named, dry_run = arguments.variables or (), arguments.dry_run
        try:
            done = free(self.session, arguments.targets, variables=named, shell=self.shell, dry_run=dry_run)
        except (RuntimeError, CannotFreeError) as error:
            raise _refusal(error) from None
        show(shown_release(done))

    def _last(self, arguments: argparse.Namespace) -> None:
        try:
            path = arguments.directory or recording.last_recording(before=self.session.directory)
            report = recording_report(recording.open_recording(path))
        except recording.RecordingError as error:
            raise _refusal(error) from None
        show(Shown(report, render_recording_report(report), lambda _: ()))

    def _simulate(self, arguments: argparse.Namespace) -> None:
        try:
            api.simulate(devices=arguments.devices, memory=arguments.memory)
        except (RuntimeError, ValueError) as error:
            raise _refusal(error) from None
        self._status(arguments)


def words(line: str) -> list[str]:
    """The words of a line. Quotes around a word go; those inside of one, as in ``batch['image']``, stay.

    Raises:
        ValueError: a quotation mark has no partner.
    """
    lexer = shlex.shlex(line, posix=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    return [word[1:-1] if word[0] == word[-1] and word[0] in "'\"" and len(word) > 1 else word for word in lexer]


def _refusal(error: BaseException) -> UsageError:
    """The same sentence without the frames that it came through, which a shell would keep, and the user's objects."""
    traceback.clear_frames(error.__traceback__)
    return UsageError(str(error))


def is_notebook(shell: InteractiveShell) -> bool:
    """Whether there is a kernel, and so perhaps a page, behind the shell."""
    return getattr(shell, "kernel", None) is not None


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What ``%gpumem watch`` was asked to set in the dashboard."""
    settings: dict[str, Any] = {}
    if getattr(arguments, "window", None) is not None:
        settings["window_ms"] = arguments.window * 1e3
    if getattr(arguments, "devices", None):
        settings["devices"] = list(arguments.devices)
    if getattr(arguments, "pause", False) or getattr(arguments, "resume", False):
        settings["paused"] = arguments.pause
    return settings
