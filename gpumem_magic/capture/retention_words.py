"""A path of objects in the words that a person would type: ``model.layers[3].weight``.

Only objects on a path that is shown are looked into, and only through descriptors and methods of their built-in base
types: no ``__repr__``, property, ``__getattr__`` or ``__class__`` of the user's is ever called.
"""

from __future__ import annotations

import _thread
import collections
import functools
import types
from typing import TYPE_CHECKING, Any, NamedTuple

from gpumem_magic import _core
from gpumem_magic.capture.roots import code_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_KEY_LENGTH = 40
_SHOWN_OBJECTS = 24  # at either end of a path that is too long
_LONGEST_STEP = 5  # objects that one step looks at
_PLAIN_KEYS = (str, int, bool, float, bytes, type(None))
_LRU_CACHE = type(functools.lru_cache(int))
_COROUTINES = {types.GeneratorType: "gi", types.CoroutineType: "cr", types.AsyncGeneratorType: "ag"}
_TYPE_DICT = type.__dict__["__dict__"]
_TYPE_MRO = type.__dict__["__mro__"]
_TYPE_NAME = type.__dict__["__name__"]
_METHOD_TYPES = (types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType)


class _Step(NamedTuple):
    """Words for some references in a row. Those that are ``code`` follow the words before without an arrow."""

    words: str
    used: int  # references that the words stand for
    is_code: bool = True


def path_words(label: str, objects: Sequence[object], cell_labels: Mapping[str, str]) -> str:
    """Words for the path that starts at what ``label`` names, ``objects[0]``, and leads to ``objects[-1]``.

    Of a path that is longer than anybody reads, such as a linked list, both ends are told.
    """
    if len(objects) <= 2 * _SHOWN_OBJECTS:
        return label + _words(objects, cell_labels)
    left_out = len(objects) - 2 * _SHOWN_OBJECTS
    begin = label + _words(objects[:_SHOWN_OBJECTS], cell_labels)
    end = _words(objects[-_SHOWN_OBJECTS:], cell_labels)
    return f"{begin} → {left_out:,} more → <{type_name(type(objects[-_SHOWN_OBJECTS]))}>{end}"


def _words(objects: Sequence[object], cell_labels: Mapping[str, str]) -> str:
    words = ""
    position = 0
    while position + 1 < len(objects):
        step = _step(objects[position : position + _LONGEST_STEP], cell_labels)
        if step.words:
            words += step.words if step.is_code else f" → {step.words}"
        position += step.used
    return words


def type_name(kind: type) -> str:
    """The name of a type, whatever its metaclass says."""
    name: str = _TYPE_NAME.__get__(kind)
    return name


def key_words(key: object) -> str:
    """A dictionary's key as one would type it, or its type where that would mean to run its ``__repr__``."""
    if not _is_literal(key):
        return f"<{type_name(type(key))} key>"
    text = repr(key)
    return text if len(text) <= _KEY_LENGTH else text[: _KEY_LENGTH - 1] + "…"


def _is_literal(key: object) -> bool:
    if type(key) is tuple:
        return len(key) <= _KEY_LENGTH and all(map(_is_literal, key))
    return any(type(key) is kind for kind in _PLAIN_KEYS)  # not "in": a metaclass of the user's may compare


def _step(path: Sequence[Any], cell_labels: Mapping[str, str]) -> _Step:
    """The first step of ``path``, which has two objects at least."""
    parent, child = path[0], path[1]
    if type(parent) is types.TracebackType:
        return _traceback_step(path, cell_labels)
    if type(parent) is types.FrameType:
        return _frame_step(path, parent.f_lineno or 0, cell_labels)
    for kind, describe in _DESCRIBERS:
        if issubclass(type(parent), kind):
            step = describe(path)
            if step is not None:
                return step
    step = _attribute_step(path)
    if step is not None:
        return step
    if child is type(parent):
        return _Step(".__class__", 1)
    return _Step(f"<{type_name(type(child))}>", 1, is_code=False)


# Containers


def _dict_step(path: Sequence[Any]) -> _Step | None:
    parent, child = path[0], path[1]
    for key, value in list(dict.items(parent)):  # at once: other threads may change it meanwhile
        if value is child:
            return _Step(f"[{key_words(key)}]", 1)
    for key in list(dict.keys(parent)):  # a subclass may iterate as it likes
        if key is child:
            return _Step("dict key", 1, is_code=False)
    return None


def _sequence_step(path: Sequence[Any]) -> _Step | None:
    parent, child = path[0], path[1]
    index = _index(parent, child)
    if index is None:
        return None
    fields = _class_attribute(type(parent), "_fields") if issubclass(type(parent), tuple) else None
    if type(fields) is tuple and index < len(fields) and type(fields[index]) is str:
        return _Step(f".{fields[index]}", 1)
    return _Step(f"[{index}]", 1)


def _index(sequence: Any, child: object) -> int | None:
    for kind in (list, tuple, collections.deque):
        if issubclass(type(sequence), kind):
            return next((index for index, value in enumerate(list(kind.__iter__(sequence))) if value is child), None)
    return None


def _set_step(path: Sequence[Any]) -> _Step | None:
    kind = set if issubclass(type(path[0]), set) else frozenset
    found = any(value is path[1] for value in list(kind.__iter__(path[0])))
    return _Step("set element", 1, is_code=False) if found else None


# Attributes


def _attribute_step(path: Sequence[Any]) -> _Step | None:
    """``.name`` for a value in the instance's dictionary or in a slot."""
    parent = path[0]
    names = _core.instance_dict(parent)
    skipped = int(names is not None and path[1] is names)
    rest = path[1 + skipped :]
    if not rest:
        return _Step(".__dict__", 1)
    name = (None if names is None else _name_in(names, rest[0])) or _slot_name(parent, rest[0])
    if name is None:
        return None
    part = _part_of_torch_module(parent, name, rest)
    return _Step(part, skipped + 2) if part else _Step(f".{name}", skipped + 1)


def _part_of_torch_module(parent: object, name: str, rest: Sequence[Any]) -> str:
    """``.weight`` or ``[3]`` where a torch module keeps its parts in dictionaries that nobody types; else ""."""
    if len(rest) == 1 or name not in ("_parameters", "_buffers", "_modules") or not _is_torch_module(type(parent)):
        return ""
    key = _name_in(rest[0], rest[1]) if issubclass(type(rest[0]), dict) else None
    if key is None:
        return ""
    return f"[{key}]" if key.isdecimal() else f".{key}"


def _is_torch_module(kind: type) -> bool:
    bases = _TYPE_MRO.__get__(kind)
    return any(
        type_name(base) == "Module" and _TYPE_DICT.__get__(base).get("__module__") == "torch.nn.modules.module"
        for base in bases
    )


def _name_in(names: dict[Any, Any], child: object) -> str | None:
    return next((key for key, value in list(dict.items(names)) if value is child and type(key) is str), None)


def _slot_name(value: object, child: object) -> str | None:
    for base in _TYPE_MRO.__get__(type(value)):
        for name, descriptor in list(_TYPE_DICT.__get__(base).items()):
            if type(descriptor) is types.MemberDescriptorType and _read(descriptor, value) is child:
                return str(name)
    return None


def _read(descriptor: Any, value: object) -> object:
    try:
        return descriptor.__get__(value)
    except (AttributeError, TypeError):  # an empty slot, or one of another class that this one has as an attribute
        return None


def _class_attribute(kind: type, name: str) -> object:
    for base in _TYPE_MRO.__get__(kind):
        names = _TYPE_DICT.__get__(base)
        if name in names:
            return names[name]
    return None


def _class_step(path: Sequence[Any]) -> _Step | None:
    is_base = any(base is path[1] for base in _TYPE_MRO.__get__(path[0])[1:])
    return _Step(" → base class", 1) if is_base else None


# Functions and methods


def _function_step(path: Sequence[Any]) -> _Step | None:
    parent, child = path[0], path[1]
    function = f"{parent.__qualname__.rpartition('<locals>.')[2]}"
    if child is parent.__closure__ and len(path) > 2:  # noqa: PLR2004
        name = parent.__code__.co_freevars[_index(child, path[2]) or 0]
        return _Step(f"closure variable {name} of {function}", min(len(path) - 1, 3), is_code=False)
    if child is parent.__defaults__ and len(path) > 2:  # noqa: PLR2004
        names = _default_names(parent)
        place = (_index(child, path[2]) or 0) - (len(child) - len(names))  # there may be more values than arguments
        name = names[place] if 0 <= place < len(names) else "?"
        return _Step(f"default argument {name} of {function}", 2, is_code=False)
    if child is parent.__kwdefaults__ and len(path) > 2:  # noqa: PLR2004
        name = _name_in(child, path[2]) or "?"
        return _Step(f"default argument {name} of {function}", 2, is_code=False)
    if child is parent.__globals__ and len(path) > 2:  # noqa: PLR2004
        return _Step(f".__globals__{path_words('', path[1:3], {})}", 2)
    return None


def _default_names(function: types.FunctionType) -> tuple[str, ...]:
    code = function.__code__
    return code.co_varnames[: code.co_argcount][-len(function.__defaults__ or ()) :]


def _method_step(path: Sequence[Any]) -> _Step | None:
    parent, child = path[0], path[1]
    if child is parent.__self__:
        return _Step("bound method's self", 1, is_code=False)
    if type(parent) is types.MethodType and child is parent.__func__:
        return _Step("", 1)
    return None


def _partial_step(path: Sequence[Any]) -> _Step | None:
    parent, child = path[0], path[1]
    read = functools.partial.__dict__
    if child is read["func"].__get__(parent):
        return _Step("partial's function", 1, is_code=False)
    if child is read["args"].__get__(parent) and len(path) > 2:  # noqa: PLR2004
        return _Step(f"partial's argument {_index(child, path[2])}", 2, is_code=False)
    if child is read["keywords"].__get__(parent) and len(path) > 2:  # noqa: PLR2004
        return _Step(f"partial's argument {_name_in(child, path[2])}", 2, is_code=False)
    return None


def _lru_cache_step(path: Sequence[Any]) -> _Step | None:
    names = _core.instance_dict(path[0])
    if names is None or path[1] is names or any(value is path[1] for value in names.values()):
        return None
    wrapped = names.get("__wrapped__")
    function = wrapped.__qualname__ if type(wrapped) is types.FunctionType else "?"
    used = 1
    if type(path[1]) is dict and len(path) > 2:  # noqa: PLR2004
        used = 2
    return _Step(f"functools.lru_cache of {function.rpartition('<locals>.')[2]}", used, is_code=False)


def _thread_local_step(path: Sequence[Any]) -> _Step | None:
    """A thread's values are in a dictionary of their own, in one dictionary of all threads."""
    if len(path) < 4 or type(path[1]) is not dict or type(path[2]) is not dict:  # noqa: PLR2004
        return None
    name = _name_in(path[2], path[3])
    return None if name is None else _Step(f".{name}", 3)


def _cell_step(_path: Sequence[Any]) -> _Step | None:
    return _Step("cell contents", 1, is_code=False)


# Frames, generators, exceptions


def _exception_step(path: Sequence[Any]) -> _Step | None:
    parent, child = path[0], path[1]
    read = BaseException.__dict__
    if child is read["__traceback__"].__get__(parent):
        return _Step("traceback", 1, is_code=False)
    for name in ("__cause__", "__context__"):
        if child is read[name].__get__(parent):
            return _Step(f".{name}", 1)
    if child is read["args"].__get__(parent):
        return _Step(".args", 1)
    return None


def _traceback_step(path: Sequence[Any], cell_labels: Mapping[str, str]) -> _Step:
    parent, child = path[0], path[1]
    if type(child) is types.FrameType and len(path) > 2:  # noqa: PLR2004
        step = _frame_step(path[1:], parent.tb_lineno, cell_labels)
        return step._replace(used=step.used + 1)
    return _Step("", 1)


def _frame_step(path: Sequence[Any], line: int, cell_labels: Mapping[str, str]) -> _Step:
    parent, child = path[0], path[1]
    if type(child) is types.FrameType:
        return _Step("", 1)  # the caller: only the frame that holds the value is named
    place = code_label(parent.f_code, line, cell_labels)
    name, used = _variable(parent, path)
    return _Step(f"{place}, local {name}" if name else place, used, is_code=False)


def _variable(frame: types.FrameType, path: Sequence[Any]) -> tuple[str | None, int]:
    """The variable of a frame that ``path`` begins with, and how many references it stands for."""
    child = path[1]
    for name, value in _core.frame_variables(frame):
        if value is child:
            return name, 1
        if type(child) is types.CellType and len(path) > 2 and value is path[2]:  # noqa: PLR2004
            return name, 2
    if type(child) is dict and len(path) > 2:  # noqa: PLR2004
        return _name_in(child, path[2]), 2
    return None, 1


def _coroutine_step(path: Sequence[Any]) -> _Step | None:
    parent = path[0]
    prefix = _COROUTINES[type(parent)]
    frame = getattr(parent, f"{prefix}_frame")
    if frame is None:
        return None
    name, used = _variable(frame, path)
    function = parent.__qualname__.rpartition("<locals>.")[2]
    kind = "coroutine" if prefix == "cr" else "generator"
    words = f"{kind} {function}()"
    return _Step(f"{words}, local {name}" if name else words, used, is_code=False)


def _memoryview_step(path: Sequence[Any]) -> _Step | None:
    exporter = path[0].obj
    used = next((index for index, value in enumerate(path[:3]) if value is exporter), None)
    return None if used is None else _Step(".obj", used)


_DESCRIBERS: tuple[tuple[Any, Callable[[Sequence[Any]], _Step | None]], ...] = (
    (dict, _dict_step),
    ((list, tuple, collections.deque), _sequence_step),
    ((set, frozenset), _set_step),
    (type, _class_step),
    (types.FunctionType, _function_step),
    (_METHOD_TYPES, _method_step),
    (functools.partial, _partial_step),
    (_LRU_CACHE, _lru_cache_step),
    (_thread._local, _thread_local_step),  # noqa: SLF001
    (types.CellType, _cell_step),
    (BaseException, _exception_step),
    (tuple(_COROUTINES), _coroutine_step),
    (memoryview, _memoryview_step),
)
