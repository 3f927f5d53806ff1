"""The live dashboard in real pages: a server with kernels of every ipykernel that matters, a browser, notebooks."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import gpumem_magic
from tests.dashboard.live import Live, prelude
from tests.jupyter import App, launched_chromium, running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from playwright.sync_api import Browser

    from tests.jupyter import Notebook, Server

IPYKERNELS = ("6.31", "7.3", "7.4")
"""They differ in how messages of the page are handled while a cell runs: not, on another thread, on one if asked."""
NEWEST = IPYKERNELS[-1]

NOT_OURS = (
    "reading 'schema'",  # Notebook 7.6 says so of any notebook
    "Kernel not running",  # Jupyter's own, of a kernel that a test ended
    "Canceled future for execute_request message before replies were done",
    "Canceled",  # the same, as a rejected promise
    "Connection lost, reconnecting",
)
"""In errors of the page and of its console."""


@pytest.fixture(scope="session")
def ipykernels(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pathlib.Path]:
    """Directories with nothing but one ipykernel each, by version.

    ``GPUMEM_IPYKERNELS`` names a directory that has them already; without it they are installed for this run.
    """
    ready = os.environ.get("GPUMEM_IPYKERNELS")
    home = pathlib.Path(ready) if ready else tmp_path_factory.mktemp("ipykernels")
    folders = {version: home / version for version in IPYKERNELS}
    for version, folder in folders.items():
        if not folder.is_dir():
            _install(f"ipykernel=={version}.*", folder)
    return folders


def _install(requirement: str, folder: pathlib.Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(f"{requirement} cannot be installed:\n{done.stderr}")


@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Browser]:
    pytest.importorskip("playwright.sync_api")
    with launched_chromium(chromium) as launched:
        yield launched


@pytest.fixture(scope="package")
def server(ipykernels: Mapping[str, pathlib.Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all: ``ipykernel-7.4`` and the others are names of its kernels."""
    pytest.importorskip("notebook")
    folder = tmp_path_factory.mktemp("jupyter")
    environment = {
        **os.environ,
        "GPUMEM_HOME": str(folder / "recordings"),
        "PYTHONPATH": str(pathlib.Path(gpumem_magic.__file__).parents[1]),
    }
    kernels = {f"ipykernel-{version}": [path] for version, path in ipykernels.items()}
    with running_server(folder, environment, kernels) as running:
        yield running


@pytest.fixture(scope="package")
def apps(browser: Browser, server: Server) -> Iterator[Callable[[str], App]]:
    """``lab`` or ``notebook`` in a page that all tests share."""
    made: dict[str, App] = {}

    def app(name: str) -> App:
        if name not in made:
            made[name] = App(browser, server, name)
        return made[name]

    yield app
    for each in made.values():
        each.close()


@pytest.fixture
def lab(apps: Callable[[str], App], request: pytest.FixtureRequest) -> Iterator[Notebook]:
    """A new notebook in JupyterLab, with the newest kernel and one simulated GPU or as many as the parameter says."""
    app = apps("lab")
    notebook = app.open(f"ipykernel-{NEWEST}")
    for cell in prelude(getattr(request, "param", 1)):
        notebook.run(cell)
    yield notebook
    check_page(app)


@pytest.fixture
def live(lab: Notebook) -> Live:
    """The dashboard in that notebook."""
    lab.run("%gpumem")
    return Live(lab).wait()


def check_page(app: App) -> None:
    """No error of ours in the page, and no request to another machine."""
    problems = [each for each in app.problems if not any(known in each for known in NOT_OURS)]
    app.problems.clear()
    assert problems == []
    assert app.outside == []
