"""The card under a cell that ran out of device memory, and buttons for what gives some back."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING, Any

from IPython.display import display, update_display

from gpumem_magic.capture.moments import Moments
from gpumem_magic.magics.show import show
from gpumem_magic.model.units import format_size
from gpumem_magic.verbs.free import CannotFreeError, free
from gpumem_magic.verbs.out_of_memory import explain
from gpumem_magic.views.out_of_memory import render_out_of_memory
from gpumem_magic.views.shown import Shown, shown_release

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from gpumem_magic.model.out_of_memory import Action, OutOfMemory
    from gpumem_magic.session import Session

_NOTHING = {"text/plain": ""}


class OutOfMemoryCards:
    """Shows a card when a cell dies for want of device memory. One per shell."""

    def __init__(self, shell: InteractiveShell, session: Session, is_notebook: Callable[[], bool]) -> None:
        self._shell = shell
        self._session = session
        self._is_notebook = is_notebook
        self._moments = Moments(session.ledger)
        self._buttons: FreeButtons | None = None
        self._began_ns = 0
        self.latest: OutOfMemory | None = None
        """What the last card says."""

    def cell_begins(self, time_ns: int, *, only_asks: bool) -> None:
        """A cell begins at a time of ``time.monotonic_ns``. ``only_asks``: it has nothing but ``%gpumem`` in it."""
        self._began_ns = time_ns
        self._moments.listen()
        if self._buttons is not None and not only_asks:
            self._buttons.retire()  # what they were about may be gone, and a saved notebook could not show them
            self._buttons = None

    def cell_died(self, span: int, error: BaseException) -> None:
        """A cell has ended, of ``error``. Shows a card when that was for want of device memory."""
        problem, moment = self._moments.problem, self._moments.take(self._began_ns)
        try:
            found = explain(self._session, span, error, shell=self._shell, moment=moment, note=problem)
        except (RuntimeError, KeyError) as why:
            if self._session.state != "off":  # else it was turned off in this cell
                print(f"The cell died for want of memory, perhaps, but what held it cannot be told: {why}")  # noqa: T201
            return
        except KeyboardInterrupt:
            print("Interrupted: there is no card on why the cell died.")  # noqa: T201  (instead of it)
            return
        if found is None:
            return
        self.latest = found
        show(Shown(found, render_out_of_memory(found), lambda each: each.keepers))
        if self._is_notebook() and found.actions:
            self._buttons = FreeButtons(found.actions, self._free)
            self._buttons.show()

    def remove(self) -> None:
        """Listen to nothing more."""
        self._moments.ignore()
        if self._buttons is not None:
            self._buttons.retire()
            self._buttons = None

    def _free(self, target: str) -> dict[str, str]:
        try:
            words = target.split()
            named = [word for before, word in itertools.pairwise(["", *words]) if before == "--variable"]
            plain = [word for before, word in itertools.pairwise(["", *words]) if "--variable" not in (before, word)]
            done = free(self._session, plain, variables=named, shell=self._shell)
        except (RuntimeError, CannotFreeError) as error:
            return {"text/plain": str(error)}
        return shown_release(done)._repr_mimebundle_()


class FreeButtons:
    """A row of buttons, and below it the answer to the one that was pressed last."""

    def __init__(self, actions: Sequence[Action], run: Callable[[str], dict[str, str]]) -> None:
        import ipywidgets  # noqa: PLC0415  (slow to import: only where a page shows it)

        self._run = run
        self._row_id, self._answer_id = f"gpumem-{uuid.uuid4().hex}", f"gpumem-{uuid.uuid4().hex}"
        self._done: list[Any] = []  # buttons that were pressed
        self._buttons = [self._button(ipywidgets, action) for action in actions]
        self._row = ipywidgets.Box(self._buttons, layout={"flex_flow": "row wrap"})

    def _button(self, ipywidgets: Any, action: Action) -> Any:
        target = action.command.removeprefix("%gpumem free ")  # also several variables
        button = ipywidgets.Button(
            description=f"free {target} · {format_size(action.bytes)}",
            tooltip=f"{action.command}: {action.purpose}",
            layout={"width": "auto"},
            button_style="info" if action.is_safe else "",
        )
        button.on_click(lambda pressed: self._press(pressed, target))
        return button

    def show(self) -> None:
        display(self._row, display_id=self._row_id)
        display(_NOTHING, raw=True, display_id=self._answer_id)

    def _press(self, pressed: Any, target: str) -> None:
        for button in self._buttons:
            button.disabled = True
        update_display(self._run(target), raw=True, display_id=self._answer_id)
        self._done.append(pressed)
        pressed.description, pressed.icon = f"free {target}", "check"
        for button in self._buttons:
            button.disabled = any(button is each for each in self._done)

    def retire(self) -> None:
        """Take the row away; the answer stays."""
        update_display(_NOTHING, raw=True, display_id=self._row_id)
        self._row.close()
        for button in self._buttons:
            button.close()
