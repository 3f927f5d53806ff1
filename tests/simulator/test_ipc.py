"""Memory between processes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from cuda.bindings import driver

from gpumem_magic import simulator
from tests.simulator.driver import CONTEXT, MiB, ok, start, status, used
from tests.simulator.fresh_process import in_fresh_process

INVALID_VALUE, INVALID_CONTEXT = 1, 201
HANDLE_SIZE = 64
LAZY_PEER = driver.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS.value

_OTHER_PROCESS = """
import sys
sys.path.append(sys.argv[1])
from tests.simulator import test_ipc
test_ipc.other_process(bytes.fromhex(sys.argv[2]))
"""


def other_process(handle_bytes: bytes) -> None:
    """Reads what the first process wrote, and writes an answer."""
    start()
    handle = driver.CUipcMemHandle()
    ctypes.memmove(handle.getPtr(), handle_bytes, len(handle_bytes))
    pointer = int(ok(driver.cuIpcOpenMemHandle(handle, LAZY_PEER)))
    assert used() == 0  # the bytes belong to the process that shared them
    assert ok(driver.cuMemGetAddressRange(pointer))[1] == 3 * MiB
    read = ctypes.create_string_buffer(5)
    ok(driver.cuMemcpyDtoH(ctypes.addressof(read), pointer, 5))
    ok(driver.cuMemcpyHtoD(pointer + 2 * MiB, read.raw[::-1], 5))
    assert status(driver.cuMemFree(pointer)) == INVALID_VALUE
    ok(driver.cuIpcCloseMemHandle(pointer))
    assert status(driver.cuIpcCloseMemHandle(pointer)) == INVALID_VALUE


@in_fresh_process()
def test_another_process_sees_the_same_bytes() -> None:
    start()
    pointer = int(ok(driver.cuMemAlloc(3 * MiB)))
    ok(driver.cuMemcpyHtoD(pointer, b"hello", 5))
    handle = ok(driver.cuIpcGetMemHandle(pointer))
    root = str(Path(__file__).parents[2])
    arguments = [root, ctypes.string_at(handle.getPtr(), HANDLE_SIZE).hex()]
    subprocess.run([sys.executable, "-P", "-c", _OTHER_PROCESS, *arguments], check=True)
    answer = ctypes.create_string_buffer(5)
    ok(driver.cuMemcpyDtoH(ctypes.addressof(answer), pointer + 2 * MiB, 5))
    assert answer.raw == b"olleh"


@in_fresh_process()
def test_a_process_cannot_open_its_own_handle() -> None:
    start()
    handle = ok(driver.cuIpcGetMemHandle(ok(driver.cuMemAlloc(512))))
    assert status(driver.cuIpcOpenMemHandle(handle, LAZY_PEER)) == INVALID_CONTEXT
    stream_ordered = ok(driver.cuMemAllocAsync(512, 0))
    assert status(driver.cuIpcGetMemHandle(stream_ordered)) == INVALID_VALUE
    assert status(driver.cuIpcGetMemHandle(0x1234)) == INVALID_VALUE
    forged = driver.CUipcMemHandle()
    assert status(driver.cuIpcOpenMemHandle(forged, LAZY_PEER)) == INVALID_VALUE


@in_fresh_process()
def test_external_memory_is_counted_until_it_is_destroyed() -> None:
    start()
    fd = os.memfd_create("external")
    description = driver.CUDA_EXTERNAL_MEMORY_HANDLE_DESC()
    description.type = driver.CUexternalMemoryHandleType.CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD
    description.handle.fd, description.size = fd, 5 * MiB
    memory = ok(driver.cuImportExternalMemory(description))
    assert simulator.used_bytes(0) == CONTEXT + 6 * MiB
    buffer = driver.CUDA_EXTERNAL_MEMORY_BUFFER_DESC()
    buffer.offset, buffer.size = MiB, 4 * MiB
    pointer = int(ok(driver.cuExternalMemoryGetMappedBuffer(memory, buffer)))
    ok(driver.cuMemsetD8(pointer, 1, 4 * MiB))
    assert status(driver.cuMemsetD8(pointer, 1, 4 * MiB + 1)) == INVALID_VALUE
    ok(driver.cuMemFree(pointer))
    ok(driver.cuDestroyExternalMemory(memory))
    assert used() == 0
