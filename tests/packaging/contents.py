"""What must and must not be in a wheel and in a source distribution.

``python -m tests.packaging.contents FILE...`` checks built files; the release script does.
"""

from __future__ import annotations

import pathlib
import re
import sys
import tarfile
import zipfile

IN_WHEEL = (
    r"gpumem_magic/py\.typed",
    r"gpumem_magic/_core\.pyi",
    r"gpumem_magic/_core\.[\w-]+\.so",
    r"gpumem_magic/simulator/lib/libcuda\.so\.1",
    r"gpumem_magic/simulator/lib/libcupti\.so\.13",
    r"gpumem_magic/simulator/lib/libnvidia-ml\.so\.1",
    r"gpumem_magic/views/answer\.css",
    r"gpumem_magic/cli/__init__\.py",
    r"gpumem_magic-[\w.]+\.dist-info/licenses/LICENSE",
    r"gpumem_magic-[\w.]+\.dist-info/entry_points\.txt",
)
NOT_IN_WHEEL = (
    r".*\.(c|cpp|h|hpp|def|o|a)",
    r".*CMakeLists\.txt",
    r".*/_native/.*",
    r".*/simulator/src/.*",
    r".*__pycache__.*",
    r"(tests|notebooks|benchmarks|docs|build)/.*",
)
IN_SDIST = (
    r"pyproject\.toml",
    r"CMakeLists\.txt",
    r"LICENSE",
    r"README\.md",
    r"Makefile",
    r"gpumem_magic/_native/binding\.cpp",
    r"gpumem_magic/simulator/src/CMakeLists\.txt",
    r"tests/conftest\.py",
    r"notebooks/quickstart\.ipynb",
)
NOT_IN_SDIST = (r".*\.so(\.\d+)?", r".*__pycache__.*", r"(build|dist|\.venv|\.git)/.*")


def problems(names: list[str], required: tuple[str, ...], forbidden: tuple[str, ...]) -> list[str]:
    """What is wrong with a distribution that holds these files, a line each."""
    found = [f"missing: {pattern}" for pattern in required if not any(re.fullmatch(pattern, name) for name in names)]
    found += [f"has no business in it: {name}" for name in names for bad in forbidden if re.fullmatch(bad, name)]
    return found


def check(path: pathlib.Path) -> list[str]:
    """The problems of a built file."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return problems(wheel.namelist(), IN_WHEEL, NOT_IN_WHEEL)
    with tarfile.open(path) as sdist:
        names = [member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()]
    return problems(names, IN_SDIST, NOT_IN_SDIST)


def main() -> int:
    status = 0
    for name in sys.argv[1:]:
        found = check(pathlib.Path(name))
        print(f"{name}: {'as it should be' if not found else ''}")
        for problem in found:
            print(f"  {problem}")
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
