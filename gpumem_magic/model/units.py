"""Sizes, counts and times as people write them and read them."""

from __future__ import annotations

import re

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_FACTORS = {
    "": 1,
    "b": 1,
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgtp", 1)},
    **{prefix: 1024**power for power, prefix in enumerate("kmgtp", 1)},
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgtp", 1)},
}
_SIZE = re.compile(r"\s*([+-]?(?:\d+(?:[_,]\d+)*(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Bytes from ``16GiB``, ``16G`` (1024-based), ``16GB`` (1000-based), ``1.5 MiB``, ``4096``.

    Raises:
        ValueError: the text is no size, is negative, or does not fit 64 bits.
    """
    if isinstance(text, int):
        number, unit = float(text), ""
        if text < 0:
            raise ValueError(_not_a_size(text))
        return text
    match = _SIZE.fullmatch(text)
    if match is None or match[2].lower() not in _FACTORS:
        raise ValueError(_not_a_size(text))
    number, unit = float(match[1].replace(",", "").replace("_", "")), match[2].lower()
    value = number * _FACTORS[unit]
    if not 0 <= value < 2**63:
        raise ValueError(_not_a_size(text))
    return round(value)


def _not_a_size(text: object) -> str:
    return f"{text!r} is not a size. Write a number and a unit, such as 512MiB, 16GiB or 4096 (bytes)."


def format_size(size: float, *, signed: bool = False) -> str:
    """``1.50 GiB``, ``12.0 MiB``, ``800 B``: three significant digits, 1024-based; ``signed`` adds a plus.

    Above bytes the number keeps three significant digits, so that a column of sizes lines up.
    """
    sign = "-" if size < 0 else "+" if signed and size > 0 else ""
    value = abs(float(size))
    unit = 0
    # 1023.995 would print as "1024 KiB": go up one unit as soon as rounding gets there.
    while unit < len(_BINARY) - 1 and value >= (1023.5 if unit == 0 else 1023.95):
        value /= 1024
        unit += 1
    if unit == 0:
        return f"{sign}{value:.0f} B"
    decimals = 2 if value < 9.995 else 1 if value < 999.5 else 0
    return f"{sign}{value:.{decimals}f} {_BINARY[unit]}"


def format_count(count: int) -> str:
    """``1,234,567``."""
    return f"{count:,}"


def format_duration(seconds: float) -> str:
    """``850 ns``, ``12.3 ms``, ``4.56 s``, ``2 min 5 s``, ``3 h 7 min``."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit * 0.9995:
            return f"{seconds * factor:.3g} {unit}"
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
