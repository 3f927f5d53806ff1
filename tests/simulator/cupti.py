"""A CUPTI subscriber in ctypes: what a tracker sees, without any tracker."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DRIVER, RESOURCE = 1, 3
MEM_ALLOC, MEM_FREE, MEM_ALLOC_ASYNC, MEM_ALLOC_ASYNC_PTSZ, DRIVER_GET_VERSION = 243, 245, 598, 599, 2
CONTEXT_CREATED, CONTEXT_DESTROY_STARTING = 1, 2
ENTER, EXIT = 0, 1
MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED = 39

_Function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)


class CallbackData(ctypes.Structure):
    """CUpti_CallbackData."""

    _fields_ = (
        ("site", ctypes.c_uint32),
        ("function_name", ctypes.c_char_p),
        ("function_params", ctypes.c_void_p),
        ("return_value", ctypes.POINTER(ctypes.c_int)),
        ("symbol_name", ctypes.c_char_p),
        ("context", ctypes.c_void_p),
        ("context_uid", ctypes.c_uint32),
        ("correlation_data", ctypes.POINTER(ctypes.c_uint64)),
        ("correlation_id", ctypes.c_uint32),
    )


class MemAllocParams(ctypes.Structure):
    """cuMemAlloc_v2_params."""

    _fields_ = (("dptr", ctypes.POINTER(ctypes.c_uint64)), ("bytesize", ctypes.c_size_t))


class SubscriberParams(ctypes.Structure):
    """CUpti_SubscriberParams of CUPTI 13.2."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("old_name", ctypes.c_char_p),
        ("old_name_size", ctypes.c_size_t),
        ("allow_multiple_subscribers", ctypes.c_uint8),
        ("padding", ctypes.c_uint8 * 7),
    )


def library() -> ctypes.CDLL:
    cupti = ctypes.CDLL("libcupti.so.13")
    cupti.cuptiUnsubscribe.argtypes = [ctypes.c_void_p]
    cupti.cuptiEnableCallback.argtypes = [ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    cupti.cuptiEnableDomain.argtypes = [ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int]
    return cupti


@dataclass
class Subscriber:
    """Hands every callback to `seen` as (domain, callback id, data address)."""

    seen: Callable[[int, int, int], None]
    handle: ctypes.c_void_p = field(default_factory=ctypes.c_void_p)

    def __post_init__(self) -> None:
        self.function = _Function(lambda _, domain, cbid, data: self.seen(domain, cbid, data))

    def subscribe(self) -> int:
        return int(library().cuptiSubscribe(ctypes.byref(self.handle), self.function, None))

    def subscribe_v2(self, *, share: bool) -> int:
        params = SubscriberParams(struct_size=ctypes.sizeof(SubscriberParams), allow_multiple_subscribers=share)
        return int(library().cuptiSubscribe_v2(ctypes.byref(self.handle), self.function, None, ctypes.byref(params)))

    def enable(self, domain: int, *cbids: int, enable: bool = True) -> None:
        for cbid in cbids:
            assert library().cuptiEnableCallback(enable, self.handle, domain, cbid) == 0

    def unsubscribe(self) -> int:
        return int(library().cuptiUnsubscribe(self.handle))
