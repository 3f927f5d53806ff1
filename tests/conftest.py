"""What every test gets: recordings in a place of its own, and a check that nothing of ours stays behind."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def away_from_the_sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Python puts the current directory first on the path of ``python -c``: there the sources would hide the package.

    A tree in which the native core was built is tested with ``PYTHONPATH`` naming it.
    """
    searched = os.environ.get("PYTHONPATH")
    if searched:
        places = [str(pathlib.Path(each).absolute()) for each in searched.split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(places)
    with contextlib.chdir(tmp_path_factory.mktemp("cwd")):
        yield


@pytest.fixture(autouse=True)
def recordings_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """``GPUMEM_HOME`` of the test and of every process it starts: never the user's."""
    home = tmp_path_factory.mktemp("recordings")
    monkeypatch.setenv("GPUMEM_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def nothing_left_on() -> Iterator[None]:
    """A test that turns tracking on turns it off again."""
    before = _state()
    yield
    assert before != "off" or _state() == "off", "the test left tracking on"


def _state() -> str:
    api = sys.modules.get("gpumem_magic.api")
    return "off" if api is None else str(api.session().state)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of an installed Chromium. Skips where there is none, fails where there has to be one."""
    path = os.environ.get("GPUMEM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None and os.environ.get("GPUMEM_REQUIRE_BROWSER"):
        pytest.fail("no Chromium here, and GPUMEM_REQUIRE_BROWSER is set")
    if path is None:
        pytest.skip("no Chromium here; name one in GPUMEM_CHROMIUM")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever drives a browser is marked so, without having to say it."""
    for item in items:
        if {"browser", "chromium"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.browser)


# The same examples every time in CI: a change is judged by what it does, not by what is drawn.
# Elsewhere new ones are drawn on every run, which is how the next mistake is found.
if importlib.util.find_spec("hypothesis") is not None:  # the smallest environments run tests without it
    from hypothesis import settings

    settings.register_profile("ci", derandomize=True, deadline=None)
    settings.register_profile("local", deadline=None)
    settings.load_profile("ci" if os.environ.get("CI") else "local")
