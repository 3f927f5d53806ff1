"""The quickstart notebook, executed once in a real kernel."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import TYPE_CHECKING

import pytest

import gpumem_magic

if TYPE_CHECKING:
    from nbformat import NotebookNode

QUICKSTART = pathlib.Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="session")
def quickstart() -> NotebookNode:
    """The notebook as it is in the repository, with the outputs that were saved in it."""
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(QUICKSTART, as_version=4)


@pytest.fixture(scope="session")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    """The notebook after a run from top to bottom, on the real GPU or else the simulated one."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    folder = tmp_path_factory.mktemp("quickstart")
    notebook = nbformat.read(QUICKSTART, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client and its event loop, not of what is tested
        client.execute(env=environment(folder / "recordings"))
    return notebook


def environment(recordings: pathlib.Path) -> dict[str, str]:
    """Of a kernel: recordings in a place of their own, and the package that is under test."""
    package = str(pathlib.Path(gpumem_magic.__file__).parents[1])
    return {**os.environ, "GPUMEM_HOME": str(recordings), "PYTHONPATH": package}
