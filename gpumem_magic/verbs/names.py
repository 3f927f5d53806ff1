"""What somebody meant who wrote the name of a thing: looked up, never evaluated."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from gpumem_magic import _core

if TYPE_CHECKING:
    from collections.abc import Mapping

_MISSING = object()


class NameNotFoundError(LookupError):
    """A name leads nowhere; the message says where it ends and what may be written."""


def look_up(text: str, names: Mapping[str, Any]) -> object:
    """The object that ``text`` names: a variable, then attributes of instances, and items of lists, tuples and dicts.

    No code of the user's runs: properties, ``__getattr__`` and ``__getitem__`` of their classes are not used, which is
    why not everything that Python would find is found.

    Raises:
        NameNotFoundError: it cannot be read, or there is no such thing.
    """
    try:
        return _value(ast.parse(text, mode="eval").body, names)
    except (SyntaxError, ValueError):
        raise NameNotFoundError(f"{text!r} is no name: write one such as model, Out[7] or batch['image'][0].") from None


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        if node.id not in names:
            raise NameNotFoundError(f"There is no variable {node.id!r} in this notebook.")
        return names[node.id]
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, names)
        return _found((_core.instance_dict(owner) or {}).get(node.attr, _MISSING), node)
    if isinstance(node, ast.Subscript):
        return _found(_item(_value(node.value, names), ast.literal_eval(node.slice)), node)
    raise ValueError(ast.unparse(node))


def _item(owner: Any, key: Any) -> Any:
    kind = type(owner)
    if issubclass(kind, dict) and isinstance(key, int | str):
        return dict.get(owner, key, _MISSING)
    if isinstance(key, int):
        for sequence in (list, tuple):
            if issubclass(kind, sequence):
                length = sequence.__len__(owner)
                return sequence.__getitem__(owner, key) if -length <= key < length else _MISSING
    return _MISSING


def _found(value: Any, node: ast.expr) -> Any:
    if value is _MISSING:
        where = ast.unparse(node.value) if isinstance(node, ast.Attribute | ast.Subscript) else ""
        raise NameNotFoundError(
            f"{ast.unparse(node)!r} was not found without running code: {where!r} itself can be asked for."
        )
    return value
