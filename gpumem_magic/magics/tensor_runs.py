"""``--tensors``: records PyTorch's blocks around cells, and keeps what was found of the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.analysis.frames import notebook_labels
from gpumem_magic.analysis.tensor_sites import TensorSites, tensor_sites
from gpumem_magic.capture.frameworks.torch_history import NESTED, TensorRecorder
from gpumem_magic.model.tensor_history import TensorHistory

if TYPE_CHECKING:
    import argparse

    from gpumem_magic.session import Session


class TensorRuns:
    """Records one cell at a time: PyTorch has one history. Recorded is plain data, which holds nothing alive."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._active: TensorRecorder | None = None
        self.every_cell = False  # whether cells are recorded that do not ask for it
        self.latest: tuple[str, TensorSites] | None = None  # label and answer of the last cell that made tensors

    def begin(self, options: argparse.Namespace | None) -> TensorRecorder | None:
        """Begin to record the cell that starts now; None when nobody wants it. Hand the result to ``end``."""
        if not self.every_cell and (options is None or not options.tensors):
            return None
        recorder = TensorRecorder()
        if self._active is None:
            try:
                recorder.start()
            except BaseException:  # the program was interrupted: nobody will hand the recorder to end()
                recorder.stop()
                raise
            self._active = recorder
        return recorder

    def end(self, recorder: TensorRecorder | None) -> TensorHistory | None:
        """What was recorded of the cell; PyTorch's history is off and empty from here on, unless it is the user's."""
        if recorder is None:
            return None
        if recorder is not self._active:
            return TensorHistory(problem=NESTED)
        self._active = None
        return recorder.stop()

    def answer(self, history: TensorHistory | None, label: str) -> TensorSites | None:
        """The rows of a cell that has ended; kept as the latest ones, if there are any."""
        if history is None:
            return None
        try:
            labels = notebook_labels(self._session.snapshot(allocations=False))
        except RuntimeError:  # the recording ended inside the cell: its lines are called by their file
            labels = {}
        found = tensor_sites(history, labels)
        if found.all_rows() or self.latest is None:
            self.latest = label, found
        return found
