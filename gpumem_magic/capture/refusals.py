"""Recognises the exceptions in which frameworks say that device memory ran out, and reads what they say of it.

No code of the user's runs: exceptions are told by the names of their classes, and only plain text and numbers among
their arguments are read.
"""

from __future__ import annotations

import re
import traceback
import types
from typing import TYPE_CHECKING, Any

from gpumem_magic.capture.frameworks import reading
from gpumem_magic.model.out_of_memory import Refusal
from gpumem_magic.model.stacks import Frame
from gpumem_magic.model.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator

OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY

# (framework, module of the class, its name): the name alone says it.
_CLASSES = (
    ("torch", "torch", "OutOfMemoryError"),
    ("torch", "torch.cuda", "OutOfMemoryError"),
    ("cupy", "cupy.cuda.memory", "OutOfMemoryError"),
)
# What the text of any other exception says, and whose text that is.
_TEXTS = (
    ("jax", "RESOURCE_EXHAUSTED"),
    ("torch", "CUDA out of memory"),
    ("cupy", "cudaErrorMemoryAllocation"),
    ("torch", "CUDA error: out of memory"),
    ("torch", "CUBLAS_STATUS_ALLOC_FAILED"),
    ("rmm", "std::bad_alloc: out_of_memory"),
    ("numba", "results in CUDA_ERROR_OUT_OF_MEMORY"),
    ("cuda", "CUDA_ERROR_OUT_OF_MEMORY"),
)
_MOST_CAUSES = 10

_IN_BYTES = re.compile(r"allocat\w*\s+([\d,]+)\s*bytes")
_IN_UNITS = re.compile(r"allocat\w*\s+([\d.]+\s*[KMGTP]i?B)")
_LIMIT = re.compile(r"limit set to: ([\d,]+) bytes")
_ALLOWED = re.compile(r"([\d.]+ [KMGTP]iB) allowed")
_DEVICE = re.compile(r"\bGPU (\d+)\b")

_ARGUMENTS = BaseException.__dict__["args"]
_TRACEBACK = BaseException.__dict__["__traceback__"]
_RELATED = ("__cause__", "__context__", "__suppress_context__")
_OF: dict[str, Any] = {name: BaseException.__dict__[name] for name in _RELATED}
_EXCEPTIONS: Any = BaseExceptionGroup.__dict__["exceptions"]
_MOST_TEXT = 4000  # of a message: what is searched for stands at its begin


def recognise(error: BaseException | None, *, was_refused: bool) -> tuple[BaseException, Refusal] | None:
    """What an exception, or one that it was raised from, says of device memory that could not be had; None for others.

    Returns the one that says it, too.

    Args:
        error: that a cell died of.
        was_refused: the driver refused an allocation meanwhile, so that a bare ``MemoryError`` is about the device.
    """
    for each in _chain(error):
        found = _recognised(each, was_refused=was_refused)
        if found is not None:
            return each, found
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it was raised from or while handling, the nearest first."""
    waiting, seen = [error], 0
    while waiting and seen < _MOST_CAUSES:
        each = waiting.pop(0)
        if each is not None:
            seen += 1
            yield each
            waiting += _related(each)


def _related(error: BaseException) -> list[BaseException | None]:
    cause, context, is_hidden = (_OF[name].__get__(error) for name in _RELATED)
    inside = _EXCEPTIONS.__get__(error) if issubclass(type(error), BaseExceptionGroup) else ()
    return [cause, None if is_hidden else context, *inside]


def _recognised(error: BaseException, *, was_refused: bool) -> Refusal | None:
    kind = type(error)
    arguments = _ARGUMENTS.__get__(error)
    text = next((each for each in arguments if type(each) is str), "")[:_MOST_TEXT]
    framework = _framework(kind, text, arguments, was_refused=was_refused)
    if framework is None:
        return None
    device = _DEVICE.search(text)
    return Refusal(
        exception=_name(kind),
        framework=framework,
        text=text,
        requested_bytes=_size(_IN_BYTES, text) or _size(_IN_UNITS, text),
        device=int(device[1]) if device else None,
        limit_bytes=_size(_LIMIT, text) or _size(_ALLOWED, text),
    )


def _framework(kind: type, text: str, arguments: tuple[object, ...], *, was_refused: bool) -> str | None:
    """Whose exception it is; None when it is not about device memory."""
    classes = [_name(base) for base in reading.mro(kind)]
    for framework, module, name in _CLASSES:
        if f"{module}.{name}" in classes:
            return framework
    for framework, words in _TEXTS:
        if words in text:
            return framework
    if any(_is_the_status(each) for each in arguments):
        return "cuda"
    return "" if issubclass(kind, MemoryError) and was_refused else None


def _is_the_status(value: object) -> bool:
    """Whether it is the driver's own word for it, as an enumeration or, as numba has it, a number."""
    kind = type(value)
    is_status = reading.type_name(kind) == "CUresult" and str(reading.module_name(kind)).startswith("cuda.")
    return is_status and isinstance(value, int) and int(value) == OUT_OF_MEMORY


def _name(kind: type) -> str:
    """``torch.OutOfMemoryError``; only the name for a built-in one."""
    module = reading.module_name(kind)
    name = reading.type_name(kind)
    return name if type(module) is not str or module in ("builtins", "__main__") else f"{module}.{name}"


def _size(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    if found is None:
        return None
    try:
        return parse_size(found[1])
    except ValueError:
        return None


def raising_frames(error: BaseException | None) -> tuple[Frame, ...]:
    """Where an exception was raised, innermost frame first, as plain data."""
    found = None if error is None else _TRACEBACK.__get__(error)
    if not isinstance(found, types.TracebackType):
        return ()
    frames = [
        Frame(filename=frame.f_code.co_filename, function=frame.f_code.co_qualname, line=line or 0)
        for frame, line in traceback.walk_tb(found)
    ]
    return tuple(reversed(frames))
