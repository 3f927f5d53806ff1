"""Sizes, counts and durations, written and read."""

from __future__ import annotations

import contextlib
import decimal
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumem_magic.model.units import format_count, format_duration, format_size, parse_duration, parse_size

KIB, MIB, GIB, TIB, PIB = (1024**power for power in range(1, 6))
LARGEST = 2**63 - 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("0", 0),
        ("16GiB", 16 * GIB),
        ("16G", 16 * GIB),
        ("16g", 16 * GIB),
        ("16GB", 16 * 10**9),
        ("16 gb", 16 * 10**9),
        ("1.5 MiB", 3 * MIB // 2),
        (".5K", 512),
        ("1.KiB", 1024),
        ("  512  B  ", 512),
        ("+1k", 1024),
        ("1e3", 1000),
        ("1E3kb", 10**6),
        ("1_000_000", 10**6),
        ("1,234,567", 1234567),
        ("12,345.5 KB", 12345500),
        ("2T", 2 * TIB),
        ("2PiB", 2 * PIB),
        ("0.4", 0),
        ("1.5", 2),
        ("-0", 0),
        ("1e-99999999999999999999", 0),
        ("9007199254740993", 2**53 + 1),
        ("9223372036854775807", LARGEST),
        (4096, 4096),
        (0, 0),
        (LARGEST, LARGEST),
    ],
)
def test_parse_size(text: str | int, size: int) -> None:
    parsed = parse_size(text)
    assert parsed == size
    assert type(parsed) is int


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "GiB", "-1", "-0.1", "1 GiBs", "1 XB", "1 EiB", "1GiB 2", "1 2", "0x10", "nan", "inf", "1..2",
        "1.2.3", "1,5 GiB", "1,23,456", "1_", "_1", "1__0", "1e", "1e5.0", "--1", "\N{INFINITY}", "9223372036854775808",
        "8192PiB", "9223372036854775807.5", "1e400", "1e99999999999999999999", "9" * 10_000, "1\x00",
        -1, 2**63, 10**4000, True,
    ],
)  # fmt: skip
def test_parse_size_refuses_what_is_no_size(text: str | int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the message is the next test's)
        parse_size(text)


def test_the_refusal_says_what_to_write() -> None:
    with pytest.raises(ValueError, match=re.escape("'1,5 GiB' is not a size. Write a number and a unit, such as")):
        parse_size("1,5 GiB")


def test_parse_size_does_not_depend_on_the_users_decimal_context() -> None:
    with decimal.localcontext(decimal.Context(prec=3, traps=[decimal.Inexact])):
        assert parse_size("9223372036854775807") == LARGEST


@given(st.text())
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= parse_size(text) < 2**63


@given(st.integers(0, LARGEST))
def test_every_count_of_bytes_is_read_exactly(size: int) -> None:
    assert (
        parse_size(size) == parse_size(str(size)) == parse_size(f"{size:_} B") == parse_size(format_count(size)) == size
    )


@given(st.integers(0, 2**62))
def test_a_formatted_size_reads_back_within_its_digits(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.005)


@given(st.integers(-(2**62), 2**62), st.booleans())
def test_formatting_what_was_read_changes_nothing(size: int, signed: bool) -> None:
    text = format_size(size, signed=signed)
    bytes_read = parse_size(text.lstrip("+-"))
    assert format_size(bytes_read if size >= 0 else -bytes_read, signed=signed) == text


@given(st.integers(1024, 1000 * PIB))
def test_above_bytes_a_size_has_three_digits_or_a_thousand_and_some(size: int) -> None:
    number = format_size(size).split()[0]
    assert re.fullmatch(r"\d\.\d\d|\d\d\.\d|\d{3}|10[012]\d", number), number


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (800, "800 B"),
        (1023, "1023 B"),
        (1023.4, "1023 B"),
        (1023.5, "1.00 KiB"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10229, "9.99 KiB"),
        (10235, "10.0 KiB"),
        (12 * MIB, "12.0 MiB"),
        (int(99.94 * KIB), "99.9 KiB"),
        (int(99.96 * KIB), "100 KiB"),
        (123 * KIB + 512, "124 KiB"),
        (1000 * KIB, "1000 KiB"),
        (1023 * KIB, "1023 KiB"),
        (1023.49 * KIB, "1023 KiB"),
        (1023.5 * KIB, "1.00 MiB"),
        (MIB - 1, "1.00 MiB"),
        (3 * GIB // 2, "1.50 GiB"),
        (141 * GIB, "141 GiB"),
        (2**63, "8192 PiB"),
        (-3 * GIB // 2, "-1.50 GiB"),
        (-0.3, "0 B"),
    ],
)
def test_format_size(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"), [(1536, "+1.50 KiB"), (0, "0 B"), (-1536, "-1.50 KiB"), (0.3, "0 B"), (5, "+5 B")]
)
def test_format_signed_size(size: float, text: str) -> None:
    assert format_size(size, signed=True) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (999, "999"), (1234567, "1,234,567"), (-1000, "-1,000")])
def test_format_count(count: int, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ns"),
        (850e-9, "850 ns"),
        (999.4e-9, "999 ns"),
        (999.6e-9, "1 µs"),
        (12.3e-6, "12.3 µs"),
        (12.34e-3, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (4.56, "4.56 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (125, "2 min 5 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (3 * 3600 + 7 * 60 + 59, "3 h 7 min"),
        (-4.56, "-4.56 s"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(0, 1e12))
def test_no_duration_is_written_with_an_exponent(seconds: float) -> None:
    if seconds == 0 or seconds >= 1e-12:
        assert "e+" not in format_duration(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5min", 300), ("5 m", 300), ("2h", 7200), ("1.5 d", 129600), ("45", 45), ("All", 0)],
)
def test_parse_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 years", "-3s", "0", "0min", "1e3s", "s", "1,5h"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a length of time"):
        parse_duration(text)
