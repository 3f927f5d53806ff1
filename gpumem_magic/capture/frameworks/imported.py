"""The frameworks that the user has imported, and one pass over objects for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpumem_magic.capture.frameworks import reading
from gpumem_magic.capture.frameworks.array_interface import ArrayInterface
from gpumem_magic.capture.frameworks.cuda_python import CudaBindings, CudaCore
from gpumem_magic.capture.frameworks.cupy import Cupy
from gpumem_magic.capture.frameworks.jax import Jax
from gpumem_magic.capture.frameworks.numba import Numba
from gpumem_magic.capture.frameworks.rmm import Rmm
from gpumem_magic.capture.frameworks.torch import Torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpumem_magic.capture.frameworks.framework import Framework, Holding

FRAMEWORKS: tuple[Framework, ...] = (
    Torch(),
    Cupy(),
    Jax(),
    Numba(),
    Rmm(),
    CudaCore(),
    CudaBindings(),
    ArrayInterface(),
)


def imported_frameworks() -> list[Framework]:
    """Those that the user has imported, the ones with pools of their own first."""
    return [each for each in FRAMEWORKS if each.is_imported()]


def holdings_of(
    objects: Sequence[object], frameworks: Sequence[Framework] | None = None
) -> Iterator[tuple[Framework, Holding]]:
    """(framework, holding) of all objects, asking each framework (all imported ones when None) once per type."""
    frameworks = imported_frameworks() if frameworks is None else frameworks
    wanted: dict[int, list[int]] = {}  # by the id of a type: frameworks that may find something in its objects
    chosen: list[list[int]] = [[] for _ in frameworks]

    def is_wanted(kind: type) -> bool:
        wanted[id(kind)] = [place for place, each in enumerate(frameworks) if each.may_hold(kind)]
        return bool(wanted[id(kind)])

    for index, each in reading.of_types(objects, is_wanted):
        for place in wanted[id(type(each))]:
            chosen[place].append(index)
    for framework, indexes in zip(frameworks, chosen, strict=True):
        for found in framework.holdings([objects[index] for index in indexes]):
            yield framework, found._replace(index=indexes[found.index])
