"""The protocol that each framework's file implements."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.model.frameworks import FrameworkMemory


class Holding(NamedTuple):
    """A Python object that keeps device memory alive."""

    index: int  # type: ignore[assignment]  # of the object in the sequence that was searched
    address: int  # of its first byte of device memory
    size: int  # bytes, as far as it knows
    device: int  # ordinal; NO_DEVICE for pinned host memory


class HiddenReference(NamedTuple):
    """A reference that Python's garbage collector does not see, because it lies in C++."""

    index: int  # type: ignore[assignment]  # of the object that it starts from, in the sequence that was searched
    address: int  # of the device memory that it keeps alive
    label: str  # what it is, such as "grad_fn MmBackward0: saved mat2"


class Framework(Protocol):
    """One framework that the user has imported. Nothing here imports one, makes a CUDA context or runs user code.

    Every method may be called on any thread that holds the GIL, and catches whatever an absent, too old or too new
    framework throws: the answer is then empty, and ``memory().problem`` is a sentence for people.
    """

    name: str

    def is_imported(self) -> bool:
        """Whether the user has imported it, by ``sys.modules`` alone."""

    def may_hold(self, kind: type) -> bool:
        """Whether objects of this type can be among its ``holdings()``. Runs no code of the type's metaclass."""

    def memory(self) -> FrameworkMemory:
        """Its pools now."""

    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        """Those of ``objects`` that keep device memory alive; several may share a range. Keeps none of them."""

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:
        """References that leave ``objects`` and that the garbage collector does not see. Keeps none of them."""

    def give_back(self) -> str:
        """Give what its pools keep for later back to the driver; returns what went wrong as a sentence, or ""."""
