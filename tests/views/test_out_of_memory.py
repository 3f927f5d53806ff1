"""The card of a cell that ran out of memory: what it says in each case."""

from __future__ import annotations

import dataclasses

import pytest

from gpumem_magic.views.out_of_memory import headline, out_of_memory_html, out_of_memory_text, reasons
from tests.views.cards import CARD, GIB, REFUSAL


def test_the_card_adds_up() -> None:
    CARD.self_check()
    with pytest.raises(AssertionError, match="add up"):
        dataclasses.replace(CARD, free_bytes=0).self_check()
    with pytest.raises(AssertionError):
        dataclasses.replace(CARD, safe_bytes=0).self_check()


def test_what_was_asked_for() -> None:
    assert headline(CARD) == "20.0 GiB asked for by train.py:12 forward; 3.00 GiB of GPU 0 were free."
    unknown = dataclasses.replace(CARD, requested_bytes=None, where="")
    assert headline(unknown) == "Memory was asked for; 3.00 GiB of GPU 0 were free."
    assert reasons(unknown) == ["The exception does not say how much was asked for."]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ["17.0 GiB are missing: what is marked as safe below gives 38.0 GiB."]),
        ({"requested_bytes": 200 * GIB}, ["That is more than the GPU can ever give to this process: 138 GiB."]),
        (
            {"requested_bytes": 60 * GIB},
            [
                "57.0 GiB are missing, and what is safe to free gives 38.0 GiB.",
                "Something below must go, or the request must be smaller.",
            ],
        ),
        (
            {"requested_bytes": 60 * GIB, "safe_bytes": 0},
            [
                "57.0 GiB are missing, and nothing is safe to free.",
                "Something below must go, or the request must be smaller.",
            ],
        ),
        (
            {"requested_bytes": 8 * GIB, "refusal": dataclasses.replace(REFUSAL, framework="cupy")},
            [
                "Enough is free in all, but 8.00 GiB of it lie in pools of frameworks, in pieces.",
                "The largest piece is 1.00 GiB.",
                "5.00 GiB are missing: what is marked as safe below gives 38.0 GiB.",
            ],
        ),
        (
            {"requested_bytes": 2 * GIB},
            ["That is less than was free on the GPU: a limit that torch sets itself refused it."],
        ),
        (
            {"requested_bytes": 2 * GIB, "refusal": dataclasses.replace(REFUSAL, limit_bytes=100 * GIB)},
            ["The pool of torch is limited to 100 GiB."],
        ),
        (
            {"requested_bytes": 2 * GIB, "is_at_failure": False, "note": "And this."},
            [
                "That is less than was free on the GPU: a limit that torch sets itself refused it.",
                "The sizes are those of the end of the cell: what was freed on the way out of it is gone already.",
                "And this.",
            ],
        ),
    ],
)
def test_why_and_what_would_help(change: dict[str, object], expected: list[str]) -> None:
    assert reasons(dataclasses.replace(CARD, **change)) == expected  # type: ignore[arg-type]


def test_pieces_of_pytorch_have_a_remedy() -> None:
    said = " ".join(reasons(dataclasses.replace(CARD, requested_bytes=8 * GIB)))
    assert "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True" in said


def test_names_by_how_many_pieces_they_lead_to() -> None:
    for shown in (out_of_memory_text(CARD, width=140), out_of_memory_html(CARD)):
        assert "the exception: train() in In [7]:4, local logits, and 2 more" in shown
        assert "model (12 pieces)" in shown
        assert "Out[3][" in shown
        assert "and 1 more name" in shown


def test_a_device_that_does_not_tell_its_size() -> None:
    text = out_of_memory_text(dataclasses.replace(CARD, total_bytes=None, rest_bytes=0))
    assert "GPU 0  NVIDIA H200\n" in text


def test_lines_keep_to_the_width() -> None:
    for width in (70, 100):
        assert max(map(len, out_of_memory_text(CARD, width=width).splitlines())) <= width
