"""Programs that hold device memory in one way each, and the words that are expected for it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from gpumem_magic.capture.frameworks.framework import HiddenReference, Holding
from gpumem_magic.model.frameworks import FrameworkMemory
from gpumem_magic.model.holders import HeldBy

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 1 << 20
_next_address = itertools.count(0x7F00_0000_0000, 2 * SIZE)


class Buffer:
    """Stands for an array in device memory."""

    __slots__ = ("__weakref__", "address", "saved", "size")

    def __init__(self, size: int = SIZE, *, shares: Buffer | None = None) -> None:
        self.address: int = next(_next_address) if shares is None else shares.address
        self.size = size
        self.saved: tuple[int, str] | None = None  # an address that it keeps alive unseen, and how


class Buffers:
    """A framework whose arrays are the ``Buffer`` objects made from now on: a test that failed may keep older ones."""

    name = "buffers"

    def __init__(self) -> None:
        self._first = next(_next_address)

    def is_imported(self) -> bool:
        return True

    def may_hold(self, kind: type) -> bool:
        return kind is Buffer

    def memory(self) -> FrameworkMemory:
        return FrameworkMemory(name=self.name, version="1")

    def holdings(self, objects: Sequence[object]) -> list[Holding]:
        return [
            Holding(index, each.address, each.size, 0)
            for index, each in enumerate(objects)
            if type(each) is Buffer and each.address > self._first
        ]

    def hidden_references(self, objects: Sequence[object]) -> list[HiddenReference]:
        return [
            HiddenReference(index, *each.saved)
            for index, each in enumerate(objects)
            if type(each) is Buffer and each.address > self._first and each.saved
        ]

    def give_back(self) -> str:
        return ""


@dataclasses.dataclass(frozen=True)
class Planted:
    """A program that makes one buffer by ``gpu()``, and who holds it afterwards."""

    kind: str
    code: str
    names: dict[str, str]  # name -> path, all of them
    held_by: HeldBy = HeldBy.NOTEBOOK
    path: str = ""  # where no name reaches it


def notebook(kind: str, code: str, *paths: str) -> Planted:
    """Held by notebook variables whose names begin ``paths``."""
    return Planted(kind, code, {_first_name(path): path for path in paths})


def _first_name(path: str) -> str:
    end = next((index for index, letter in enumerate(path) if not (letter.isalnum() or letter == "_")), len(path))
    return path[:end]


CONTAINERS = (
    notebook("variable", "x = gpu()", "x"),
    notebook("two variables", "x = gpu(); model = [x]", "x", "model[0]"),
    notebook("nested list", "xs = [0, [1, gpu()]]", "xs[1][1]"),
    notebook("tuple", "xs = (0, gpu())", "xs[1]"),
    notebook("string key", "d = {'a': 1, 'b': gpu()}", "d['b']"),
    notebook("integer key", "d = {7: gpu()}", "d[7]"),
    notebook("tuple key", "d = {('a', 1): gpu()}", "d[('a', 1)]"),
    notebook("bytes key", "d = {b'k': gpu()}", "d[b'k']"),
    notebook("None as key", "d = {None: gpu()}", "d[None]"),
    notebook("long key", "d = {'k' * 100: gpu()}", "d['" + "k" * 38 + "…]"),
    notebook("quote in a key", 'd = {"it\'s <b>": gpu()}', 'd["it\'s <b>"]'),
    notebook("object as key", "class Key:\n  def __repr__(self): 1/0\nd = {Key(): gpu()}", "d[<Key key>]"),
    notebook("is a key", "d = {gpu(): 1}", "d → dict key"),
    notebook("set", "s = {gpu()}", "s → set element"),
    notebook("frozenset", "s = [frozenset([gpu()])]", "s[0] → set element"),
    notebook("deque", "import collections\nq = collections.deque([0, 1, gpu()])", "q[2]"),
    notebook(
        "namedtuple", "import collections\nPair = collections.namedtuple('Pair', 'a b')\np = Pair(1, gpu())", "p.b"
    ),
    notebook("defaultdict", "import collections\nd = collections.defaultdict(list)\nd['a'].append(gpu())", "d['a'][0]"),
    notebook("OrderedDict", "import collections\nd = collections.OrderedDict(a=gpu())", "d['a']"),
    notebook("ChainMap", "import collections\nd = collections.ChainMap({}, {'a': gpu()})", "d.maps[1]['a']"),
    notebook("queue", "import queue\nq = queue.Queue()\nq.put(gpu())", "q.queue[0]"),
    notebook(
        "weak keys",
        "import weakref\nclass K: pass\nk = K()\nw = weakref.WeakKeyDictionary({k: gpu()})",
        "w.data[<ReferenceType key>]",
    ),
    notebook(
        "weak reference aside",
        "import weakref\nx = gpu()\nr = weakref.ref(x)\nv = weakref.WeakValueDictionary(a=x)",
        "x",
    ),
    notebook("list iterator", "it = iter([gpu()])", "it → <list>[0]"),
    notebook("mapping proxy", "import types\np = types.MappingProxyType({'a': gpu()})", "p → <dict>['a']"),
)
ATTRIBUTES = (
    notebook("attribute", "class M: pass\nm = M()\nm.weight = gpu()", "m.weight"),
    notebook("attribute after __dict__ was read", "class M: pass\nm = M()\nm.weight = gpu()\nvars(m)", "m.weight"),
    notebook(
        "layers", "class M: pass\nm = M()\nm.layers = [M(), M()]\nm.layers[1].weight = gpu()", "m.layers[1].weight"
    ),
    notebook("slot", "class M:\n  __slots__ = ('a', 'b')\nm = M()\nm.b = gpu()", "m.b"),
    notebook("dataclass", "import dataclasses\n@dataclasses.dataclass\nclass M:\n  w: object\nm = M(gpu())", "m.w"),
    notebook(
        "dataclass with slots",
        "import dataclasses\n@dataclasses.dataclass(slots=True)\nclass M:\n  w: object\nm = M(gpu())",
        "m.w",
    ),
    notebook("namespace", "import types\nn = types.SimpleNamespace(a=gpu())", "n.a"),
    notebook("class attribute", "class M:\n  cache = gpu()", "M.cache"),
    notebook(
        "class of an instance", "class M:\n  cache = {}\nM.cache['a'] = gpu()\nm = M()\ndel M", "m.__class__.cache['a']"
    ),
    notebook("base class", "class B:\n  cache = gpu()\nclass C(B): pass\ndel B", "C → base class.cache"),
    notebook(
        "metaclass", "class Meta(type):\n  cache = gpu()\nclass C(metaclass=Meta): pass\ndel Meta", "C.__class__.cache"
    ),
    notebook("enum", "import enum\nclass E(enum.Enum):\n  A = gpu()", "E.A._value_"),
    notebook(
        "static method",
        "class M:\n  f = staticmethod(lambda x=gpu(): x)",
        "M.f.__func__ → default argument x of M.<lambda>",
    ),
    notebook(
        "property",
        "def make(x): return property(lambda self: x)\nclass M:\n  p = make(gpu())",
        "M.p.fget → closure variable x of <lambda>",
    ),
    notebook(
        "cached property",
        "import functools\nclass M:\n  @functools.cached_property\n  def w(self): return gpu()\nm = M()\nm.w",
        "m.w",
    ),
    notebook("list with attributes", "class L(list): pass\nxs = L()\nxs.extra = gpu()", "xs.extra"),
    notebook("dict with attributes", "class D(dict): pass\nd = D()\nd.extra = gpu()", "d.extra"),
    notebook("module without a place", "import types\nm = types.ModuleType('m')\nm.cache = [gpu()]", "m.cache[0]"),
    notebook("thread local", "import threading\nt = threading.local()\nt.x = [gpu()]", "t.x[0]"),
    notebook("thread", "import threading\nt = threading.Thread(target=print, args=(gpu(),))", "t._args[0]"),
    notebook(
        "hostile object",
        "class H:\n  def __getattribute__(self, name): raise SystemExit(name)\n"
        "  __class__ = property(lambda self: 1 / 0)\n  def __repr__(self): raise SystemExit\n"
        "  def __hash__(self): raise SystemExit\n  def __eq__(self, other): raise SystemExit\n"
        "h = object.__new__(H)\nobject.__setattr__(h, 'w', gpu())",
        "h.w",
    ),
    notebook(
        "hostile dict",
        "class D(dict):\n  def refuse(self, *_): raise SystemExit\n"
        "  items = keys = values = get = __iter__ = __getitem__ = __len__ = refuse\nd = D(a=gpu())",
        "d['a']",
    ),
    notebook(
        "hostile list",
        "class L(list):\n  def refuse(self, *_): raise SystemExit\n"
        "  __iter__ = __getitem__ = __len__ = index = refuse\nxs = L([0, gpu()])",
        "xs[1]",
    ),
    notebook(
        "hostile metaclass",
        "class Meta(type):\n  def refuse(self, *_): raise SystemExit\n"
        "  __getattribute__ = __subclasscheck__ = __instancecheck__ = __hash__ = __eq__ = __repr__ = refuse\n"
        "class C(metaclass=Meta):\n  cache = gpu()",
        "C.cache",
    ),
    notebook(
        "instance of a hostile metaclass",
        "class Meta(type):\n  def refuse(self, *_): raise SystemExit\n"
        "  __getattribute__ = __subclasscheck__ = __instancecheck__ = __hash__ = __eq__ = __repr__ = refuse\n"
        "class C(metaclass=Meta):\n  __slots__ = ('a', 'b')\nc = C()\nc.b = {C: [gpu()]} if 0 else [gpu()]",
        "c.b[0]",
    ),
    notebook(
        "key of a hostile metaclass",
        "class Meta(type):\n  def refuse(self, *_): raise SystemExit\n"
        "  __getattribute__ = __subclasscheck__ = __instancecheck__ = __hash__ = __eq__ = __repr__ = refuse\n"
        "class K(metaclass=Meta): pass\nd = {object.__new__(K): gpu()}",
        "d[<K key>]",
    ),
    notebook(
        "property named __dict__",
        "class H:\n  @property\n  def __dict__(self): raise SystemExit\nh = H()\nh.w = gpu()",
        "h.w",
    ),
)
TORCH = (
    "class Module: pass\nModule.__module__ = 'torch.nn.modules.module'\n"
    "class Net(Module):\n  def __init__(self, **parts):\n    self._parameters = {}\n    self._modules = parts\n"
)
TORCH_MODULES = (
    notebook(
        "torch parameter",
        TORCH + "m = Net(layers=Net())\nm._modules['layers']._parameters['weight'] = gpu()",
        "m.layers.weight",
    ),
    notebook(
        "torch sequence",
        TORCH + "m = [Net(**{'0': Net(), '1': Net()})]\nm[0]._modules['1']._parameters['w'] = gpu()",
        "m[0][1].w",
    ),
    notebook("not a torch module", "class M: pass\nm = M()\nm._parameters = {'w': gpu()}", "m._parameters['w']"),
)
FUNCTIONS = (
    notebook(
        "closure",
        "def make():\n  x = gpu()\n  def f(): return x\n  return f\nf = make()",
        "f → closure variable x of f",
    ),
    notebook(
        "closure over a list",
        "def make():\n  x = [gpu()]\n  return lambda: x\nf = make()",
        "f → closure variable x of <lambda>[0]",
    ),
    notebook("default argument", "def f(a, b=1, c=gpu()): pass", "f → default argument c of f"),
    notebook("keyword default", "def f(*, c=gpu()): pass", "f → default argument c of f"),
    notebook("function attribute", "def f(): pass\nf.cache = {'a': gpu()}", "f.cache['a']"),
    notebook(
        "wrapped",
        "import functools\ndef f(x=gpu()): pass\n@functools.wraps(f)\ndef g(): pass\ndel f",
        "g.__wrapped__ → default argument x of f",
    ),
    notebook(
        "bound method",
        "class M:\n  def go(self): pass\nm = M()\nm.w = gpu()\ngo = m.go\ndel m",
        "go → bound method's self.w",
    ),
    notebook("built-in method", "add = [gpu()].append", "add → bound method's self[0]"),
    notebook("partial", "import functools\np = functools.partial(print, 1, gpu())", "p → partial's argument 1"),
    notebook(
        "partial keyword", "import functools\np = functools.partial(print, end=gpu())", "p → partial's argument end"
    ),
    notebook(
        "partial function",
        "import functools\np = functools.partial(lambda x=gpu(): x)",
        "p → partial's function → default argument x of <lambda>",
    ),
    notebook(
        "lru_cache",
        "import functools\n@functools.lru_cache\ndef f(n): return gpu()\nf(1)",
        "f → functools.lru_cache of f",
    ),
    notebook(
        "unbounded cache",
        "import functools\n@functools.cache\ndef f(n): return gpu()\nf(1)",
        "f → functools.lru_cache of f",
    ),
    notebook("generator", "def g():\n  x = gpu()\n  yield 1\nit = g()\nnext(it)", "it → generator g(), local x"),
    notebook("generator argument", "def g(x):\n  yield 1\nit = [g(gpu())]", "it[0] → generator g(), local x"),
    notebook(
        "generator with a cell",
        "def g():\n  x = gpu()\n  f = lambda: x\n  del f\n  yield 1\nit = g()\nnext(it)",
        "it → generator g(), local x",
    ),
    notebook("coroutine", "async def c(x): pass\nco = c(gpu())", "co → coroutine c(), local x"),
    notebook("async generator", "async def c(x): yield\nco = c(gpu())", "co → generator c(), local x"),
    notebook(
        "exec globals",
        "ns = {}\nexec('cache = 1\\ndef f(): pass', ns)\nns['cache'] = gpu()\nf = ns['f']\ndel ns",
        "f.__globals__['cache']",
    ),
)
EXCEPTIONS = (
    notebook(
        "caught exception",
        "def train():\n  logits = gpu()\n  1 / 0\ntry: train()\nexcept Exception as e: err = e",
        "err → traceback → train() in case.py:3, local logits",
    ),
    notebook(
        "deep traceback",
        "def inner(): 1 / 0\ndef train():\n  logits = gpu()\n  inner()\ntry: train()\nexcept Exception as e: err = e",
        "err → traceback → train() in case.py:4, local logits",
    ),
    notebook(
        "cause",
        "def train():\n  x = gpu()\n  1 / 0\ntry:\n  try: train()\n  except Exception as e: raise ValueError from e\n"
        "except Exception as e: err = e",
        "err.__cause__ → traceback → train() in case.py:3, local x",
    ),
    notebook("exception's arguments", "err = ValueError('bad', gpu())", "err.args[1]"),
    notebook("exception's attribute", "err = ValueError()\nerr.tensor = gpu()", "err.tensor"),
    notebook("exception group", "err = ExceptionGroup('g', [ValueError(gpu())])", "err.exceptions[0].args[0]"),
    notebook(
        "kept frame",
        "import sys\ndef f():\n  x = gpu()\n  return sys._getframe()\nfr = f()",
        "fr → f() in case.py:4, local x",
    ),
)
EVERYTHING = (*CONTAINERS, *ATTRIBUTES, *TORCH_MODULES, *FUNCTIONS, *EXCEPTIONS)
