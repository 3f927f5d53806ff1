"""The check of built files is itself checked; the files are checked where they are built."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

from tests.packaging.contents import IN_WHEEL, check, problems

if TYPE_CHECKING:
    import pathlib

GOOD_WHEEL = [
    "gpumem_magic/py.typed",
    "gpumem_magic/_core.pyi",
    "gpumem_magic/_core.cpython-312-x86_64-linux-gnu.so",
    "gpumem_magic/simulator/lib/libcuda.so.1",
    "gpumem_magic/simulator/lib/libcupti.so.13",
    "gpumem_magic/simulator/lib/libnvidia-ml.so.1",
    "gpumem_magic/views/answer.css",
    "gpumem_magic/cli/__init__.py",
    "gpumem_magic-0.1.0.dist-info/licenses/LICENSE",
    "gpumem_magic-0.1.0.dist-info/entry_points.txt",
]


def wheel(path: pathlib.Path, names: list[str]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as made:
        for name in names:
            made.writestr(name, "")
    return path


def test_a_good_wheel(tmp_path: pathlib.Path) -> None:
    assert check(wheel(tmp_path / "good.whl", GOOD_WHEEL)) == []


def test_each_thing_that_may_be_missing(tmp_path: pathlib.Path) -> None:
    assert len(GOOD_WHEEL) == len(IN_WHEEL)
    for name in GOOD_WHEEL:
        rest = [other for other in GOOD_WHEEL if other != name]
        assert len(check(wheel(tmp_path / "short.whl", rest))) == 1, name


def test_each_thing_that_must_not_be_there(tmp_path: pathlib.Path) -> None:
    for name in ("gpumem_magic/_core.cpp", "gpumem_magic/simulator/src/pool.h", "tests/conftest.py"):
        assert f"has no business in it: {name}" in check(wheel(tmp_path / "long.whl", [*GOOD_WHEEL, name]))


def test_a_source_distribution(tmp_path: pathlib.Path) -> None:
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as made:
        made.addfile(tarfile.TarInfo("gpumem_magic-0.1.0/gpumem_magic/_core.so"), io.BytesIO())
    found = check(tmp_path / "bad.tar.gz")
    assert "has no business in it: gpumem_magic/_core.so" in found
    assert "missing: README\\.md" in found


def test_patterns_match_whole_names() -> None:
    assert problems(["xREADME.md"], ("README\\.md",), ()) == ["missing: README\\.md"]
