"""Sizes, counts and times as people write them and read them."""

from __future__ import annotations

import decimal
import re

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_FACTORS: dict[str, int] = {
    "": 1,
    "b": 1,
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgtp", 1)},
    **{prefix: 1024**power for power, prefix in enumerate("kmgtp", 1)},
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgtp", 1)},
}
_DIGITS = r"\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*"  # a comma groups thousands: "1,5 GiB" is refused, not read as 15
_SIZE = re.compile(rf"\s*([+-]?(?:(?:{_DIGITS})(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_EXACT = decimal.Context(prec=40, traps=[])  # every size below 2**63 exactly; our own, as users change theirs


def parse_size(text: str | int) -> int:
    """Bytes from ``16GiB``, ``16G`` (1024-based), ``16GB`` (1000-based), ``1.5 MiB``, ``4096``.

    Raises:
        ValueError: the text is no size, is negative, or does not fit 63 bits.
    """
    match = _SIZE.fullmatch(str(text))
    if match is None or match[2].lower() not in _FACTORS:
        raise ValueError(_not_a_size(text))
    number = _EXACT.create_decimal(match[1].replace(",", "").replace("_", ""))
    value = _EXACT.multiply(number, decimal.Decimal(_FACTORS[match[2].lower()]))
    if not value.is_finite() or not 0 <= value <= 2**63 - 1:
        raise ValueError(_not_a_size(text))
    return round(value)


def _not_a_size(text: object) -> str:
    return f"{text!r} is not a size. Write a number and a unit, such as 512MiB, 16GiB or 4096 (bytes)."


_TIMES = {"ms": 1e-3, "": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds from ``30s``, ``5min``, ``2h``, ``1.5 d``, ``45``; 0 from ``all``.

    Raises:
        ValueError: the text is no length of time, or is 0.
    """
    if text.strip().lower() == "all":
        return 0.0
    match = _TIME.fullmatch(text)
    seconds = float(match[1]) * _TIMES.get(match[2].lower(), 0.0) if match else 0.0
    if not seconds:
        raise ValueError(f"{text!r} is not a length of time. Write a number and a unit, such as 30s, 5min or 2h.")
    return seconds


def format_size(size: float, *, signed: bool = False) -> str:
    """``1.50 GiB``, ``12.0 MiB``, ``800 B``: three significant digits, 1024-based; ``signed`` adds a plus.

    Above bytes the number keeps three significant digits, so that a column of sizes lines up.
    """
    sign = "-" if size < 0 else "+" if signed and size > 0 else ""
    value = abs(float(size))
    unit = 0
    # 1023.7 would print as "1024 KiB": go up one unit as soon as rounding gets there.
    while unit < len(_BINARY) - 1 and value >= 1023.5:
        value /= 1024
        unit += 1
    if unit == 0:
        return f"{sign if round(value) else ''}{value:.0f} B"
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
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
