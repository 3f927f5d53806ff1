"""The picture for places without SVG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageColor

from gpumem_magic.analysis.cell_report import cell_report
from gpumem_magic.views.png import cell_report_png
from gpumem_magic.views.theme import LIGHT
from tests.analysis import scenes
from tests.views.planted import planted_recording


def pixels_of(picture: np.ndarray, colour: str) -> int:
    return int((picture == ImageColor.getrgb(LIGHT[colour])).all(axis=2).sum())


def test_picture_shows_curve_and_peak() -> None:
    recording, cell = scenes.two_devices()
    data = cell_report_png(cell_report(recording.snapshot(), cell))
    picture = np.asarray(Image.open(io.BytesIO(data)))
    assert picture.shape == (956, 1800, 3)
    for colour, least in (("live-soft", 100_000), ("live", 2_000), ("peak", 100), ("fg", 100)):
        assert pixels_of(picture, colour) > least, colour


def test_picture_of_odd_names() -> None:
    recording, cell = planted_recording()
    assert cell_report_png(cell_report(recording.snapshot(), cell)).startswith(b"\x89PNG")
