"""Memory of graphs, and stream capture with its refusals."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import cuda.bindings
from cuda.bindings import driver

from tests.simulator.driver import MiB, device_prop, ok, start, status, used
from tests.simulator.fresh_process import in_fresh_process

BINDINGS_MAJOR = int(cuda.bindings.__version__.split(".")[0])
MODE = driver.CUstreamCaptureMode
GLOBAL = MODE.CU_STREAM_CAPTURE_MODE_GLOBAL
THREAD_LOCAL = MODE.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
RELAXED = MODE.CU_STREAM_CAPTURE_MODE_RELAXED
AUTO_FREE = driver.CUgraphInstantiate_flags.CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH
INVALID_VALUE, ILLEGAL_STATE, NOT_SUPPORTED, UNSUPPORTED, INVALIDATED = 1, 401, 801, 900, 901


def alloc_params(size: int, kind: Any = driver.CUDA_MEM_ALLOC_NODE_PARAMS) -> Any:
    params = kind()
    prop = device_prop()
    params.poolProps.allocType, params.poolProps.location = prop.type, prop.location
    params.bytesize = size
    return params


def graph_with_allocation(size: int) -> tuple[Any, Any, int]:
    graph, params = ok(driver.cuGraphCreate(0)), alloc_params(size)
    node = ok(driver.cuGraphAddMemAllocNode(graph, None, 0, params))
    return graph, node, int(params.dptr)


def capture_state(stream: Any) -> int:
    return int(ok(driver.cuStreamIsCapturing(stream)))


@in_fresh_process()
def test_an_allocation_node_is_live_from_the_launch_on() -> None:
    start()
    graph, _, address = graph_with_allocation(5 * MiB)
    executable = ok(driver.cuGraphInstantiate(graph, 0))
    assert status(driver.cuGraphInstantiate(graph, 0)) == NOT_SUPPORTED
    assert used() == 0
    assert status(driver.cuMemFree(address)) == INVALID_VALUE
    ok(driver.cuGraphLaunch(executable, 0))
    assert used() == 32 * MiB
    assert ok(driver.cuMemGetAddressRange(address))[1] == 5 * MiB
    assert status(driver.cuGraphLaunch(executable, 0)) == INVALID_VALUE
    ok(driver.cuMemFree(address))
    assert status(driver.cuMemFree(address)) == INVALID_VALUE
    assert used() == 32 * MiB
    ok(driver.cuDeviceGraphMemTrim(0))
    assert used() == 0


@in_fresh_process()
def test_live_memory_of_a_graph_outlives_it() -> None:
    start()
    graph, _, address = graph_with_allocation(5 * MiB)
    executable = ok(driver.cuGraphInstantiate(graph, 0))
    ok(driver.cuGraphLaunch(executable, 0))
    ok(driver.cuGraphExecDestroy(executable))
    ok(driver.cuGraphDestroy(graph))
    ok(driver.cuMemsetD8(address, 1, 5 * MiB))
    ok(driver.cuMemFreeAsync(address, 0))
    ok(driver.cuDeviceGraphMemTrim(0))
    assert used() == 0


@in_fresh_process()
def test_a_free_node_ends_it_within_the_launch() -> None:
    start()
    graph, node, address = graph_with_allocation(5 * MiB)
    ok(driver.cuGraphAddMemFreeNode(graph, [node], 1, address))
    assert status(driver.cuGraphAddMemFreeNode(graph, [node], 1, address)) == INVALID_VALUE
    assert status(driver.cuGraphAddMemFreeNode(graph, None, 0, 0x1234)) == INVALID_VALUE
    executable = ok(driver.cuGraphInstantiate(graph, 0))
    ok(driver.cuGraphLaunch(executable, 0))
    ok(driver.cuGraphLaunch(executable, 0))
    assert status(driver.cuMemFree(address)) == INVALID_VALUE


@in_fresh_process()
def test_auto_free_and_the_generic_node() -> None:
    start()
    params = driver.CUgraphNodeParams()
    params.type = driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_MEM_ALLOC
    params.alloc = alloc_params(3 * MiB, driver.CUDA_MEM_ALLOC_NODE_PARAMS_v2)
    graph = ok(driver.cuGraphCreate(0))
    edge_data = [None] if BINDINGS_MAJOR >= 13 else []
    node = ok(driver.cuGraphAddNode(graph, None, *edge_data, 0, params))
    address = int(ok(driver.cuGraphMemAllocNodeGetParams(node)).dptr)
    executable = ok(driver.cuGraphInstantiate(graph, AUTO_FREE))
    for _ in range(3):
        ok(driver.cuGraphLaunch(executable, 0))
    ok(driver.cuMemFree(address))


@in_fresh_process()
def test_captured_work_happens_at_the_launch() -> None:
    start()
    stream = ok(driver.cuStreamCreate(0))
    host = ctypes.create_string_buffer(4)
    ok(driver.cuStreamBeginCapture(stream, GLOBAL))
    address = int(ok(driver.cuMemAllocAsync(MiB, stream)))
    ok(driver.cuMemsetD8Async(address, 0x61, 4, stream))
    ok(driver.cuMemcpyDtoHAsync(ctypes.addressof(host), address, 4, stream))
    ok(driver.cuMemFreeAsync(address, stream))
    assert capture_state(stream) == 1
    graph = ok(driver.cuStreamEndCapture(stream))
    assert (used(), host.raw) == (0, bytes(4))
    nodes, count = ok(driver.cuGraphGetNodes(graph, 8))
    types = [int(ok(driver.cuGraphNodeGetType(n))) for n in nodes[:count]]
    assert types == [10, 2, 1, 11]  # allocate, set, copy, free
    ok(driver.cuGraphLaunch(ok(driver.cuGraphInstantiate(graph, 0)), stream))
    assert host.raw == b"aaaa"


@in_fresh_process()
def test_unsafe_calls_spoil_a_capture() -> None:
    start()
    stream = ok(driver.cuStreamCreate(0))
    ok(driver.cuStreamBeginCapture(stream, GLOBAL))
    assert status(driver.cuMemAlloc(512)) == UNSUPPORTED
    assert capture_state(stream) == 2
    assert status(driver.cuMemFree(0)) == UNSUPPORTED
    assert status(driver.cuMemAllocAsync(512, stream)) == INVALIDATED
    assert status(driver.cuStreamEndCapture(stream)) == INVALIDATED
    assert status(driver.cuStreamEndCapture(stream)) == ILLEGAL_STATE
    ok(driver.cuMemAlloc(512))
    assert status(driver.cuStreamBeginCapture(0, GLOBAL)) == UNSUPPORTED


@in_fresh_process()
def test_modes_say_whose_calls_are_unsafe() -> None:
    context = start()
    stream = ok(driver.cuStreamCreate(0))
    seen: list[int] = []

    def elsewhere() -> None:
        ok(driver.cuCtxSetCurrent(context))
        seen.append(status(driver.cuMemAlloc(512)))

    for mode, here, there in [(RELAXED, 0, 0), (THREAD_LOCAL, UNSUPPORTED, 0), (GLOBAL, UNSUPPORTED, UNSUPPORTED)]:
        ok(driver.cuStreamBeginCapture(stream, mode))
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert (status(driver.cuMemAlloc(512)), seen.pop()) == (here, there)
        driver.cuStreamEndCapture(stream)
    ok(driver.cuStreamBeginCapture(stream, RELAXED))
    assert status(driver.cuStreamSynchronize(stream)) == UNSUPPORTED
    assert status(driver.cuStreamEndCapture(stream)) == INVALIDATED


@in_fresh_process()
def test_a_stream_joins_a_capture_through_an_event() -> None:
    start()
    first, second = ok(driver.cuStreamCreate(0)), ok(driver.cuStreamCreate(0))
    event = ok(driver.cuEventCreate(0))
    ok(driver.cuStreamBeginCapture(first, RELAXED))
    ok(driver.cuEventRecord(event, first))
    ok(driver.cuStreamWaitEvent(second, event, 0))
    assert capture_state(second) == 1
    ok(driver.cuMemAllocAsync(MiB, second))
    assert status(driver.cuStreamEndCapture(second)) == 903
    graph = ok(driver.cuStreamEndCapture(first))
    assert ok(driver.cuGraphGetNodes(graph, 0))[1] == 1
    assert capture_state(second) == 0
