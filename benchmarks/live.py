"""What an open dashboard costs a kernel's own work: ``python -m benchmarks.live``.

Starts a real Jupyter kernel, and in one of its cells does the same work with the extension loaded, and with the
dashboard open besides, in alternating rounds. No page looks on: what the page costs is ``benchmarks.dashboard``'s.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from typing import TYPE_CHECKING, Any

from cuda.bindings import driver as cuda

from benchmarks.harness import Variant, interleaved, median_us, prepare_device, print_environment
from gpumem_magic import simulator

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S = 500


def nothing() -> None:
    """Enter or leave a round without a dashboard."""


def measure(rounds: int) -> None:
    """In a kernel with the extension loaded: print what the open dashboard costs each kind of work."""
    from IPython import get_ipython  # noqa: PLC0415

    print_environment(prepare_device())
    views = get_ipython()._gpumem_magics.live_views  # noqa: SLF001
    views.prepare()
    variants = [
        Variant("closed", nothing, nothing),
        Variant("open", views.show, views.close),
        Variant("again", nothing, nothing),
    ]
    for title, body, calls in _work():
        times = interleaved(variants, body, calls=calls, rounds=rounds)
        closed, live, again = (median_us(times[name]) for name in ("closed", "open", "again"))
        print(
            f"{title}: {closed:.2f} us with the dashboard closed, {live:.2f} open ({live / closed:.3f}); "
            f"closed again {again:.2f} ({again / closed:.3f}, the noise)"
        )
    print(f"the dashboard's thread: {100 * _thread_share(views):.2f} % of a core while the last kind of work ran")


def _work() -> list[tuple[str, Callable[[int], None], int]]:
    found: list[tuple[str, Callable[[int], None], int]] = [
        ("cuMemAllocAsync + cuMemFreeAsync of 1 KiB", _pairs, 100_000),
        ("a loop of Python code", _loop, 40),
    ]
    if not simulator.is_active() and importlib.util.find_spec("torch") is not None:
        found += _torch_work()
    return found


def _pairs(count: int) -> None:
    for _ in range(count):
        _, pointer = cuda.cuMemAllocAsync(1024, 0)
        cuda.cuMemFreeAsync(pointer, 0)


def _loop(count: int) -> None:
    for _ in range(count):
        sum(n * n for n in range(100_000))


def _torch_work() -> list[tuple[str, Callable[[int], None], int]]:
    import torch  # noqa: PLC0415

    from benchmarks.overhead import training_step  # noqa: PLC0415

    small = torch.ones(16, device="cuda")

    def launch(count: int) -> None:
        for _ in range(count):
            small.add_(1)
        torch.cuda.synchronize()

    return [
        ("kernel launch (torch add_ on 16 floats)", launch, 100_000),
        ("training step (4-layer transformer)", training_step(), 150),
    ]


def _thread_share(views: Any) -> float:
    """Share of a core that the thread of an open dashboard took, by its own clock, over some seconds of work."""
    body = _work()[-1][1]
    views.show()
    thread = views.dashboard.thread_clock()
    began, before = time.monotonic(), time.clock_gettime(thread)
    while time.monotonic() - began < 5:
        body(10)
    share = (time.clock_gettime(thread) - before) / (time.monotonic() - began)
    views.close()
    return share


def main() -> None:
    """Run the measurement in a kernel of its own."""
    from jupyter_client.manager import start_new_kernel  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it works, not to quote")
    rounds = 2 if parser.parse_args().quick else 7
    load = "%load_ext gpumem_magic" if _has_driver() else "%load_ext gpumem_magic\n%gpumem simulate"
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        for code in (load, f"from benchmarks import live\nlive.measure({rounds})"):
            reply = client.execute_interactive(code, timeout=TIMEOUT_S, output_hook=_show)
            if reply["content"]["status"] != "ok":
                sys.exit("\n".join(reply["content"]["traceback"]))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _has_driver() -> bool:
    from gpumem_magic.capture import driver  # noqa: PLC0415

    return driver.is_driver_present()


def _show(message: dict[str, Any]) -> None:
    if message["msg_type"] == "stream":
        print(message["content"]["text"], end="")


if __name__ == "__main__":
    main()
