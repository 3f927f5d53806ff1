"""A captured stack is what the interpreter would say, whatever is on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import Ended

# `here(n)` allocates n pages and remembers what sys._getframe says of its callers.
COMPARE = """
import sys
expected = {}
def here(pages):
    stack, frame = [], sys._getframe(1)
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_lineno))
        frame = frame.f_back
    expected[pages * 4096] = stack
    return alloc(pages * 4096)

def compare(depth=128):
    snapshot = gpumem.snapshot()
    snapshot.self_check()
    seen = {}
    for row in snapshot.allocations:
        # [0] is alloc(), [1] is here(): its line has moved on since, the callers' lines have not.
        seen[int(row["size"])] = frames(snapshot, row["stack"])[2:]
    assert seen.keys() == expected.keys(), (seen.keys(), expected.keys())
    wrong = []
    for size, stack in expected.items():
        clean = [(file, name.encode("utf-8", "surrogatepass").decode(errors="replace"), line)
                 for file, name, line in stack[: depth - 2]]
        if seen[size] != clean:
            wrong.append([size // 4096, seen[size][:4], clean[:4], len(seen[size]), len(clean)])
    answer(wrong=wrong, compared=len(expected), status=gpumem.status().stacks)
"""


def check(program: Callable[..., Ended], script: str, compared: int, *, depth: int = 128) -> None:
    found = program(f"{COMPARE}\ngpumem.start()\n{script}\ncompare({depth})\n").answer
    assert found == {"wrong": [], "compared": compared, "status": ""}


def test_functions_classes_lambdas_comprehensions(program: Callable[..., Ended]) -> None:
    check(
        program,
        """
def plain():
    return (lambda: here(1))()
plain()
class Body:
    attribute = here(2)
    def method(self): return here(3)
    @classmethod
    def of_class(cls): return here(4)
    @property
    def attribute_of_instance(self): return here(5)
    def __del__(self): here(6)
    def __init_subclass__(cls): here(7)
class Derived(Body):
    pass
body = Body(); body.method(); Body.of_class(); body.attribute_of_instance
del body
[here(8 + i) for i in range(2)]
{here(10 + i): None for i in range(2)}
list(here(12 + i) for i in range(2))
def outer():
    def inner():
        nonlocal_ = [[here(14) for _ in range(1)] for _ in range(1)]
        return nonlocal_
    return inner()
outer()
def decorated(function): here(15); return function
@decorated
def unused(): pass
def default(argument=here(16)): pass
try:
    raise ValueError
except ValueError:
    here(17)
finally:
    here(18)
with __import__("contextlib").ExitStack() as stack:
    stack.callback(here, 19)
assert (lambda *args, **kwargs: kwargs["x"]())(x=lambda: here(20))
""",
        20,
    )


def test_generators_and_coroutines(program: Callable[..., Ended]) -> None:
    check(
        program,
        """
import asyncio
def generate():
    here(1)
    received = yield
    here(2)
    yield from deeper()
def deeper():
    yield here(3)
    try:
        yield
    finally:
        here(4)
generator = generate()
next(generator); generator.send("x"); next(generator)
del generator  # runs the finally
def another(): return (yield here(5))
for _ in another(): here(6)
async def leaf(): return here(7)
async def branch():
    here(8)
    await asyncio.sleep(0)
    await leaf()
    async for each in stream(): pass
    async with manager(): here(9)
    await asyncio.gather(asyncio.create_task(task(10)), task(11))
    return [here(12 + x) async for x in stream()]
async def stream():
    yield 0
    yield 1
async def task(number):
    await asyncio.sleep(0)
    here(number)
class manager:
    async def __aenter__(self): here(14)
    async def __aexit__(self, *error): here(15)
asyncio.run(branch())
def throw_into():
    try:
        yield
    except KeyError:
        here(16)
        yield
thrown = throw_into(); next(thrown); thrown.throw(KeyError())
""",
        16,
    )


def test_c_code_that_calls_back(program: Callable[..., Ended]) -> None:
    check(
        program,
        """
import functools, operator, re
number = iter(range(1, 100))
def key(x):
    here(next(number))
    return x
sorted([3, 1, 2], key=key)
list(map(key, [1, 2]))
list(filter(key, [1]))
functools.reduce(lambda a, b: key(b), [1, 2])
functools.partial(key, 1)()
re.sub("a", lambda match: (key(1), "")[1], "aa")
max([1, 2], key=lambda x: key(x))
callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda a, b: (key(0), 0)[1])
array = (ctypes.c_int * 2)(1, 2)
ctypes.CDLL(None).qsort(array, 2, 4, callback)
class Odd:
    def __eq__(self, other): key(1); return False
    def __hash__(self): key(1); return 1
    def __getattr__(self, name): key(1); return 1
    def __len__(self): key(1); return 1
    def __iter__(self): key(1); return iter(())
{Odd(): 1}; Odd() == 1; Odd().x; len(Odd()); list(Odd())
exec("key(1)"); eval("key(1)")
""",
        21,
    )


def test_recursion_deeper_than_the_limit(program: Callable[..., Ended]) -> None:
    check(
        program,
        """
sys.setrecursionlimit(5000)
def down(n):
    if n % 97 == 0: here(n + 1)
    if n: down(n - 1)
    elif n == 0: here(5000)
down(1500)
""",
        17,
    )


def test_threads_have_stacks_of_their_own(program: Callable[..., Ended]) -> None:
    check(
        program,
        """
def work(number, depth):
    if depth: return work(number, depth - 1)
    use_context()
    for each in range(20): here(1 + number * 20 + each)
threads = [threading.Thread(target=work, args=(n, n * 3)) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(2, initializer=use_context) as pool:
    list(pool.map(here, range(200, 220)))
""",
        180,
    )


def test_names_of_every_sort(program: Callable[..., Ended]) -> None:
    check(
        program,
        """
names = ["ascii", "é", "漢字", "\\U0001d518", "a" * 70000, "with\\nnewline", "nul\\0inside", "\\ud800", "", "<λ>"]
def template(pages): return here(pages)
for pages, name in enumerate(names, 1):
    named = name if len(name) < 60000 else name[:60000]
    file = "file " + named[:9].replace("\\ud800", "?")
    code = template.__code__.replace(co_name=named, co_qualname=named, co_filename=file)
    type(template)(code, globals())(pages)
exec(compile("\\n" * 100000 + "here(50)", "far down", "exec"))
exec(compile("x = [\\n" + "1,\\n" * 300 + "here(51),\\n" + "1,\\n" * 300 + "]", "long expression", "exec"))
exec(compile("here(52) if True else (\\n\\n0)", "one line", "exec"))
class Ünïcode:
    def метод(self): return here(53)
Ünïcode().метод()
""",
        14,
    )


def test_depth_is_what_was_asked_for(program: Callable[..., Ended]) -> None:
    found = program(
        """
        from gpumem_magic.session import Session
        lengths = []
        for depth in (1, 2, 5, 512):
            session = Session(depth=depth)
            status = session.start()
            assert status.stacks == "", status.stacks
            def down(n): return down(n - 1) if n else alloc(4096)
            pointer = down(20)
            snapshot = session.snapshot()
            (row,) = snapshot.allocations
            lengths.append(len(frames(snapshot, row["stack"])))
            free(pointer)
            session.stop()
        answer(lengths=lengths)
        """,
    ).answer
    assert found["lengths"] == [1, 2, 5, 23]
