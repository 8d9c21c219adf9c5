"""Curves in a picture, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 420, 60, 220, 34, 44
COLOURS = (
    (31, 90, 180),
    (220, 120, 20),
    (40, 140, 70),
    (190, 40, 50),
    (120, 80, 170),
    (110, 110, 110),
    (20, 150, 160),
    (150, 100, 50),
    (220, 90, 170),
)
STEPS = (1, 2, 5)
Points = Sequence[tuple[float, float]]


def ticks(low: float, high: float) -> list[float]:
    """Some five round numbers from ``low`` to ``high``."""
    raw = (high - low) / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((s * power for s in (*STEPS, 10) if s * power >= raw), raw)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """1, 2, 5 times the powers of ten from ``low`` to ``high``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [s * 10.0**p for p in powers for s in STEPS if low <= s * 10.0**p * 1.0001 and s * 10.0**p <= high * 1.0001]


def chart(path: Path, title: str, across: str, up: str, curves: Mapping[str, Points], *, log_up: bool = False) -> None:
    """Write curves of points (x, y) as a PNG; x is logarithmic, y where ``log_up`` says so. A single point is a dot."""
    shown = {name: sorted(points) for name, points in curves.items() if points}
    xs, ys = ([point[axis] for points in shown.values() for point in points] for axis in (0, 1))
    if not xs:
        raise ValueError(f"nothing to draw in {path}")
    x0, x1 = math.log(min(xs) / 1.15), math.log(max(xs) * 1.15)
    margin = 0.08 * ((max(ys) - min(ys)) or 1.0)
    y0, y1 = (min(ys) / 1.3, max(ys) * 1.3) if log_up else (min(ys) - margin, max(ys) + margin)
    scale = math.log if log_up else float

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log(x) - x0) / (x1 - x0)
        height = (scale(y) - scale(y0)) / (scale(y1) - scale(y0))
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - height * (HEIGHT - TOP - BOTTOM)

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    bottom, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    for x in decades(math.exp(x0), math.exp(x1)):
        at = place(x, y0)[0]
        draw.line((at, TOP, at, bottom), fill=(230, 230, 230))
        draw.text((at, bottom + 4), f"{x:g}", fill="black", anchor="ma")
    for y in decades(y0, y1) if log_up else ticks(y0, y1):
        at = place(math.exp(x0), y)[1]
        draw.line((LEFT, at, end, at), fill=(230, 230, 230))
        draw.text((LEFT - 6, at), f"{y:g}", fill="black", anchor="rm")
    draw.rectangle((LEFT, TOP, end, bottom), outline=(150, 150, 150))
    draw.text((LEFT, 8), title, fill="black")
    draw.text(((LEFT + end) / 2, bottom + 22), across, fill="black", anchor="ma")
    draw.text((6, TOP - 14), up, fill="black")
    for number, (name, points) in enumerate(shown.items()):
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(*point) for point in points]
        if len(placed) > 1:
            draw.line(placed, fill=colour, width=2)
        for x, y in placed:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        draw.text((end + 12, TOP + 18 * number), name, fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
