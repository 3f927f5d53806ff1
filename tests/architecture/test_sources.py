"""What may stand in a source file: headers in C and C++, and no notes to ourselves."""

from __future__ import annotations

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NATIVE = ROOT / "gpumem_magic" / "_native"

# The interpreter's own header is seen by the stack walker and by the proof of the frame layout. The binding sees it
# through nanobind, which is the binding's business. Who holds what is asked of Python objects themselves.
PYTHON_HEADER_IN = {
    "frame_layout.h",
    "frame_walker.cpp",
    "frame_variables.h",
    "object_graph.h",
    "binding.cpp",
    "binding_graph.h",
    "binding_graph.cpp",
    "frame_proof.c",
}
INCLUDE = re.compile(r"^\s*#\s*include\s*[<\"]([^>\"]+)[>\"]", re.MULTILINE)
# Headers of the CUDA toolkit; our own may mention CUPTI in their names, and are included in quotes.
TOOLKIT = re.compile(r"^\s*#\s*include\s*<(?:cuda|cupti|nvml|nvtx|driver_types|vector_types)[^>]*>", re.MULTILINE)
NOTES = re.compile(r"\b(?:TO" + "DO|FIX" + "ME|XX" + r"X)\b")


def tracked(*patterns: str) -> list[pathlib.Path]:
    """Files that are, or are about to be, in the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z", "--", *patterns]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def native_sources() -> list[pathlib.Path]:
    return tracked("*.c", "*.cpp", "*.h", "*.def")


def test_only_the_walker_and_the_binding_see_python() -> None:
    for path in native_sources():
        if path.parent == NATIVE and path.name in PYTHON_HEADER_IN:
            continue
        included = INCLUDE.findall(path.read_text(encoding="utf-8"))
        seen = [name for name in included if name == "Python.h" or name.startswith(("nanobind/", "internal/pycore"))]
        assert seen == [], f"{path.relative_to(ROOT)} includes {seen}"


def test_the_frame_layout_reaches_nobody_else() -> None:
    including = [path.name for path in native_sources() if "frame_layout.h" in INCLUDE.findall(path.read_text("utf-8"))]
    assert set(including) <= {"frame_walker.cpp", "frame_variables.cpp", "frame_proof.c"}


def test_no_header_of_the_cuda_toolkit() -> None:
    sources = native_sources()
    assert len(sources) > 50, "the search itself must find something"
    for path in sources:
        assert TOOLKIT.findall(path.read_text(encoding="utf-8")) == [], path.relative_to(ROOT)


@pytest.mark.parametrize("line", ["#include <cuda.h>", "#include <cupti_callbacks.h>", "  # include <nvml.h>"])
def test_the_rule_itself(line: str) -> None:
    assert TOOLKIT.search(line)


def test_no_notes_to_ourselves() -> None:
    for path in tracked("*.py", "*.c", "*.cpp", "*.h", "*.toml", "*.md", "*.txt", "*.css", "Makefile", ".ci/run"):
        noted = NOTES.search(path.read_text(encoding="utf-8"))
        assert noted is None, f"{path.relative_to(ROOT)}: {noted}"
