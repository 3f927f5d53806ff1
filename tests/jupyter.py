"""JupyterLab and Notebook 7 as a person has them: one server, pages of a real browser, notebooks run cell by cell.

For tests and benchmarks alike. What makes it dependable: Jupyter's own commands instead of clicks, because clicks wait
for animations; the promise of a cell's command instead of the kernel's status, because a kernel says "idle" in the
middle of a cell when it has answered a widget; directories of its own for all settings, so that nothing pops up; and
every cell in the page at once instead of those in sight.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Mapping, Sequence

    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route

CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
CURRENT = "window.jupyterapp.shell.currentWidget"
_START_S, _STOP_S = 60.0, 30.0


def find_chromium() -> str | None:
    """Path of the Chromium that is installed, or that ``GPUMEM_CHROMIUM`` names."""
    return os.environ.get("GPUMEM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def launched_chromium(path: str) -> Iterator[Browser]:
    """A browser with a fresh profile."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_OPTIONS))
        yield browser
        browser.close()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server that has JupyterLab under ``/lab`` and Notebook 7 under ``/notebooks``."""

    address: str
    files: pathlib.Path  # the directory whose notebooks it serves

    def url(self, app: str, name: str) -> str:
        """Address of a notebook in ``lab`` or ``notebook``."""
        return f"{self.address}/lab/tree/{name}?reset" if app == "lab" else f"{self.address}/notebooks/{name}"

    def kernels(self) -> list[dict[str, Any]]:
        """What the server says of each kernel that runs."""
        with urllib.request.urlopen(f"{self.address}/api/kernels", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def stop_kernel(self, key: str) -> None:
        """End the kernel with this id, if it runs."""
        if any(kernel["id"] == key for kernel in self.kernels()):
            request = urllib.request.Request(f"{self.address}/api/kernels/{key}", method="DELETE")
            urllib.request.urlopen(request, timeout=30).close()


@contextlib.contextmanager
def running_server(
    folder: pathlib.Path, environment: Mapping[str, str], kernels: Mapping[str, Sequence[pathlib.Path]] | None = None
) -> Iterator[Server]:
    """A server that keeps everything below ``folder`` and asks nobody for news.

    Args:
        folder: an empty directory; notebooks go into its ``files``.
        environment: of the server and its kernels.
        kernels: names of more kernels, each with what comes first on its ``PYTHONPATH``.
    """
    files, own = folder / "files", folder / "own"
    files.mkdir(parents=True)
    for name, setting in SETTINGS.items():
        path = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(setting), encoding="utf-8")
    for name, first in (kernels or {}).items():
        _write_kernel(own / "data" / "kernels" / name, name, first, environment.get("PYTHONPATH", ""))
    places = {
        "HOME": own,
        "JUPYTER_CONFIG_DIR": own / "config",
        "JUPYTER_DATA_DIR": own / "data",
        "JUPYTER_RUNTIME_DIR": own / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": own / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": own / "workspaces",
    }
    port = _free_port()
    command = [
        *(sys.executable, "-P", "-m", "notebook", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={files}"),
        *("--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True"),
        *("--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"),
    ]
    log = own / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            env={**environment, **{name: str(place) for name, place in places.items()}},
            stdout=file,
            stderr=file,
            cwd=files,
        )
    server = Server(address=f"http://127.0.0.1:{port}", files=files)
    try:
        _wait_for(server, process, log)
        yield server
        for kernel in server.kernels():  # they would outlive a server that is ended while one of them starts
            server.stop_kernel(kernel["id"])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=_STOP_S)


def _write_kernel(folder: pathlib.Path, name: str, first: Sequence[pathlib.Path], path: str) -> None:
    folder.mkdir(parents=True)
    specification = {
        "argv": [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": name,
        "language": "python",
        "env": {"PYTHONPATH": os.pathsep.join([*map(str, first), path])},
    }
    (folder / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(server: Server, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            server.kernels()
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"The Jupyter server did not start. It said:\n{log.read_text(encoding='utf-8')[-3000:]}")


class CellFailedError(AssertionError):
    """A cell raised something."""


class App:
    """JupyterLab or Notebook 7 in a page of its own, showing one notebook at a time."""

    def __init__(self, browser: Browser, server: Server, app: str, *, width: int = 1280, height: int = 1000) -> None:
        self.server = server
        self.app = app
        self.problems: list[str] = []  # errors of the page and of its console
        self.outside: list[str] = []  # requests to other machines; none gets there
        self.context: BrowserContext = browser.new_context(viewport={"width": width, "height": height})
        inside = re.compile(rf"^(?!{re.escape(server.address)}/)https?:")
        self.context.route(inside, self._refuse)
        self.page: Page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(f"{error}\n{error.stack}"))
        self.page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        self._is_open = False
        self.is_reloaded = False  # what Lab restores after that comes in between for a while

    def _refuse(self, route: Route) -> None:
        self.outside.append(route.request.url)
        route.abort()

    def open(self, kernel: str = "python3", cells: Sequence[str] = ()) -> Notebook:
        """A new notebook with a kernel of its own."""
        from playwright.sync_api import TimeoutError as PageTimeoutError  # noqa: PLC0415

        try:
            return self._open(kernel, cells)
        except PageTimeoutError:  # now and then Jupyter misses the first words of a kernel and waits for ever
            self.is_reloaded = True
            return self._open(kernel, cells)

    def _open(self, kernel: str, cells: Sequence[str]) -> Notebook:
        name = f"{uuid.uuid4().hex[:8]}.ipynb"
        notebook = {
            "cells": [_cell(source) for source in cells],
            "metadata": {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.server.files / name).write_text(json.dumps(notebook), encoding="utf-8")
        self.show(name)
        opened = Notebook(self, name)
        opened.wait_for_kernel()
        self.problems.clear()  # a page that is loading has some of its own
        return opened

    def show(self, name: str) -> None:
        """Show a notebook that is there. One that was shown is left, unsaved, and its kernel ends."""
        self.leave()
        if self.app == "lab" and self._is_open and not self.is_reloaded:
            # Lab takes seconds to load and a moment to open one more notebook.
            self.page.evaluate("path => { window.jupyterapp.commands.execute('docmanager:open', {path}) }", name)
        else:
            self.page.goto(self.server.url(self.app, name), wait_until="domcontentloaded")
            self._is_open, self.is_reloaded = True, False
        self.wait_for_notebook(name)

    def leave(self) -> None:
        """Close the notebook that is shown, and end its kernel."""
        if not self._is_open:
            return
        kernel = self.page.evaluate(f"{CURRENT}?.sessionContext?.session?.kernel?.id")
        if self.app == "lab":
            self.page.evaluate("() => [...window.jupyterapp.shell.widgets('main')].forEach(each => each.dispose())")
        else:
            self.page.goto("about:blank")
        if kernel:
            self.server.stop_kernel(kernel)
        self.problems.clear()

    def wait_for_notebook(self, name: str) -> None:
        """Until the notebook is the one that is shown, and loaded."""
        self.page.wait_for_function(
            f"name => window.jupyterapp && {CURRENT}?.context?.path === name && {CURRENT}.context.isReady", arg=name
        )

    def close(self) -> None:
        self.leave()
        self.context.close()


def _cell(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": uuid.uuid4().hex[:8],
        "metadata": {},
        "outputs": [],
        "source": source,
    }


class Notebook:
    """The notebook that a page shows. Cells are added at its end and run."""

    def __init__(self, app: App, name: str) -> None:
        self.app = app
        self.page = app.page
        self.name = name

    @property
    def path(self) -> pathlib.Path:
        """Its file."""
        return self.app.server.files / self.name

    def wait_for_kernel(self) -> None:
        """Until its kernel answers: a cell that is run before waits in a queue for seconds."""
        self.page.wait_for_function(
            f"""() => {{
                const kernel = {CURRENT}.sessionContext.session?.kernel;
                return kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle';
            }}""",
            timeout=60_000,
        )

    def reload(self) -> None:
        """Load the page anew, as a reader would; the kernel keeps running."""
        self.page.reload(wait_until="domcontentloaded")
        self.app.is_reloaded = True
        self.app.wait_for_notebook(self.name)
        self.wait_for_kernel()

    def start(self, source: str) -> Cell:
        """Add a cell and run it; does not wait for its end."""
        key = self.page.evaluate(
            f"""source => {{
                const {{content}} = {CURRENT};
                const shared = content.model.sharedModel;
                const count = shared.cells.length;
                shared.insertCell(count, {{cell_type: 'code', source}});
                return shared.getCell(count).id;
            }}""",
            source,
        )
        self.page.wait_for_function(
            f"key => {CURRENT}.content.widgets.some(each => each.model.id === key)", arg=key, timeout=10_000
        )
        cell = Cell(self, key)
        cell.start()
        return cell

    def run(self, source: str, timeout_s: float = 60) -> Cell:
        """Add a cell, run it to its end. Raises CellFailedError when it fails."""
        cell = self.start(source)
        cell.wait(timeout_s)
        return cell

    def run_all(self) -> None:
        """Run every cell; does not wait."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")

    def evaluate(self, expression: str) -> Any:
        """The value that an expression has in the kernel; it can be written as JSON."""
        cell = self.run(f"import json\nprint('VALUE', json.dumps({expression}))")
        return json.loads(cell.text.partition("VALUE ")[2])

    def activate(self) -> None:
        """Bring it to the front, where Jupyter's commands act on it."""
        self.page.evaluate(
            """path => {
                const {shell} = window.jupyterapp;
                const mine = each => each.context?.path === path && each.content?.widgets;
                shell.activateById([...shell.widgets('main')].find(mine).id);
            }""",
            self.name,
        )
        self.app.wait_for_notebook(self.name)

    def command(self, name: str) -> None:
        """Execute a command of Jupyter's and wait for it."""
        self.page.evaluate("name => window.jupyterapp.commands.execute(name).then(() => null)", name)

    def save(self) -> dict[str, Any]:
        """Save it; returns what is in its file."""
        self.command("docmanager:save")
        saved: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return saved


class Cell:
    """A code cell of the notebook that is shown."""

    def __init__(self, notebook: Notebook, key: str) -> None:
        self.page = notebook.page
        self.key = key
        self._mine = f"{CURRENT}.content.widgets.find(each => each.model.id === {json.dumps(key)})"

    def start(self) -> None:
        """Run it, again perhaps."""
        self.select()
        self.page.evaluate(
            """key => {
                window.cellsRunning ??= new Set();
                window.cellsRunning.add(key);
                window.jupyterapp.commands.execute('notebook:run-cell')
                    .finally(() => window.cellsRunning.delete(key));
            }""",
            self.key,
        )

    @property
    def is_running(self) -> bool:
        return bool(self.page.evaluate("key => window.cellsRunning.has(key)", self.key))

    def wait(self, timeout_s: float = 60) -> None:
        """Until it ended. Raises CellFailedError when it failed."""
        self.page.wait_for_function(
            "key => !window.cellsRunning.has(key)", arg=self.key, timeout=timeout_s * 1000, polling=20
        )
        failures = [each for each in self.outputs if each["output_type"] == "error"]
        if failures:
            raise CellFailedError("\n".join(failures[0]["traceback"]))

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """As a saved notebook would have them."""
        found: list[dict[str, Any]] = self.page.evaluate(f"{self._mine}.model.outputs.toJSON()")
        return found

    @property
    def text(self) -> str:
        """What it printed."""
        return "".join(str(each["text"]) for each in self.outputs if each["output_type"] == "stream")

    @property
    def area(self) -> Locator:
        """Where its outputs are shown."""
        count = self.page.evaluate(f"{CURRENT}.content.widgets.findIndex(each => each.model.id === '{self.key}')")
        return self.page.locator(".jp-Notebook .jp-Cell").nth(count).locator(".jp-Cell-outputArea")

    def select(self) -> None:
        """Make it the active cell, which Jupyter's commands act on."""
        self.page.evaluate(
            f"""key => {{
                const {{content}} = {CURRENT};
                content.activeCellIndex = content.widgets.findIndex(each => each.model.id === key);
            }}""",
            self.key,
        )
