"""Which exceptions say that device memory ran out, and what is read from them. Texts are those of the frameworks."""

from __future__ import annotations

import enum

import pytest

from gpumem_magic.capture import refusals
from gpumem_magic.capture.refusals import raising_frames
from gpumem_magic.model.out_of_memory import Refusal

GIB = 1 << 30


def recognise(error: BaseException | None, *, was_refused: bool) -> Refusal | None:
    found = refusals.recognise(error, was_refused=was_refused)
    return None if found is None else found[1]


def made(name: str, module: str, base: type[BaseException] = RuntimeError) -> type[BaseException]:
    return type(name, (base,), {"__module__": module})


TORCH = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 1 has a total capacity of 139.80 GiB of which 3.12 GiB is "
    "free. Including non-PyTorch memory, this process has 136.68 GiB memory in use. Of the allocated memory 135.00 GiB "
    "is allocated by PyTorch, and 1.00 GiB is reserved by PyTorch but unallocated."
)
CUPY = (
    "Out of memory allocating 1,099,511,627,776 bytes (allocated so far: 512 bytes, limit set to: 2,147,483,648 bytes)."
)
JAX = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1099511627776 bytes."
JAX_UNITS = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.00TiB."
NUMBA = "Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"
RMM = "std::bad_alloc: out_of_memory: CUDA error at: /include/rmm/mr/device/cuda_memory_resource.hpp:60"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            made("OutOfMemoryError", "torch")(TORCH),
            Refusal(
                exception="torch.OutOfMemoryError",
                framework="torch",
                text=TORCH,
                requested_bytes=20 * GIB,
                device=1,
            ),
        ),
        (
            made("OutOfMemoryError", "cupy.cuda.memory", MemoryError)(CUPY),
            Refusal(
                exception="cupy.cuda.memory.OutOfMemoryError",
                framework="cupy",
                text=CUPY,
                requested_bytes=1 << 40,
                limit_bytes=2 * GIB,
            ),
        ),
        (
            made("XlaRuntimeError", "jaxlib.xla_extension")(JAX),
            Refusal(
                exception="jaxlib.xla_extension.XlaRuntimeError", framework="jax", text=JAX, requested_bytes=1 << 40
            ),
        ),
        (
            made("JaxRuntimeError", "jax.errors")(JAX_UNITS),
            Refusal(exception="jax.errors.JaxRuntimeError", framework="jax", text=JAX_UNITS, requested_bytes=1 << 40),
        ),
        (
            made("CudaAPIError", "numba.cuda.cudadrv.driver", Exception)(2, NUMBA),
            Refusal(exception="numba.cuda.cudadrv.driver.CudaAPIError", framework="numba", text=NUMBA),
        ),
        (MemoryError(RMM), Refusal(exception="MemoryError", framework="rmm", text=RMM)),
        (
            RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: it is gone"),
            Refusal(exception="RuntimeError", framework="cuda", text="CUDA_ERROR_OUT_OF_MEMORY: it is gone"),
        ),
    ],
    ids=lambda each: each.framework if isinstance(each, Refusal) else "",
)
def test_what_frameworks_say(error: BaseException, expected: Refusal) -> None:
    assert recognise(error, was_refused=False) == expected


def test_a_subclass_is_recognised_too() -> None:
    found = recognise(type("Mine", (made("OutOfMemoryError", "torch"),), {})("x"), was_refused=False)
    assert found is not None
    assert (found.framework, found.requested_bytes) == ("torch", None)


@pytest.mark.parametrize(
    "error",
    [None, ValueError("out of memory"), MemoryError(), KeyboardInterrupt(), RuntimeError(2), RuntimeError(b"x")],
)
def test_what_is_about_something_else(error: BaseException | None) -> None:
    assert recognise(error, was_refused=False) is None


def test_a_bare_memory_error_counts_when_the_driver_refused() -> None:
    found = recognise(MemoryError(), was_refused=True)
    assert found == Refusal(exception="MemoryError", framework="", text="")
    assert recognise(ValueError(), was_refused=True) is None


def test_the_driver_s_status_as_an_argument() -> None:
    status = enum.IntEnum("CUresult", {"CUDA_SUCCESS": 0, "CUDA_ERROR_OUT_OF_MEMORY": 2}, module="cuda.bindings.driver")
    found = recognise(AssertionError(status.CUDA_ERROR_OUT_OF_MEMORY), was_refused=False)
    assert found is not None
    assert found.framework == "cuda"
    assert recognise(AssertionError(status.CUDA_SUCCESS), was_refused=False) is None


def test_causes_are_looked_at_and_loops_end() -> None:
    inner, outer = RuntimeError(JAX), ValueError("outer")
    outer.__context__, inner.__context__ = inner, outer
    found = recognise(outer, was_refused=False)
    assert found is not None
    assert found.framework == "jax"
    harmless = ValueError("a")
    harmless.__context__ = other = ValueError("b")
    other.__context__ = harmless
    assert recognise(harmless, was_refused=False) is None


def test_no_code_of_the_exception_runs() -> None:
    class Meta(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise AssertionError("the name of the class was asked for")

        def __eq__(cls, other: object) -> bool:
            raise AssertionError("the class was compared")

        __hash__ = None  # type: ignore[assignment]

    class HostileError(RuntimeError, metaclass=Meta):
        def __str__(self) -> str:
            raise AssertionError("the text was made")

        @property
        def args(self) -> tuple[object, ...]:  # type: ignore[override]
            raise AssertionError("the arguments were asked for")

    assert recognise(HostileError(JAX), was_refused=False) is not None


def test_where_it_was_raised() -> None:
    def inner() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here") as raised:
        inner()
    frames = raising_frames(raised.value)
    assert frames[0].function.endswith("inner")
    assert frames[1].function == "test_where_it_was_raised"
    assert frames[0].line == inner.__code__.co_firstlineno + 1
    assert raising_frames(None) == raising_frames(ValueError()) == ()


def test_odd_classes_and_long_texts() -> None:
    odd = type("OddError", (Exception,), {"__module__": []})
    assert recognise(odd("x"), was_refused=False) is None
    assert recognise(RuntimeError("CUDA out of memory" + "allocat" * 20_000), was_refused=False) is not None


def test_groups_are_looked_into_and_hidden_contexts_are_not() -> None:
    group = ExceptionGroup("two", [ValueError("a"), RuntimeError(JAX)])
    assert recognise(group, was_refused=False) is not None
    hidden = KeyError("config")
    hidden.__context__, hidden.__suppress_context__ = RuntimeError(JAX), True
    assert recognise(hidden, was_refused=False) is None
