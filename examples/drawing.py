"""Maps, points, arrows and lines on panels, with numpy and Pillow only: what the teaching pictures share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

OUT = Path("invsolve-examples")
INK, RED, BLUE = (30, 30, 40), (200, 60, 40), (35, 90, 180)
SCALE = 2  # drawn larger, then reduced: smooth edges

PAPER_TO_INK = np.array([[255, 255, 255], [205, 222, 240], [120, 165, 210], [45, 95, 160], [15, 35, 80]], float)
PAPER_TO_RED = np.array([[255, 255, 255], [253, 219, 199], [244, 165, 130], [214, 96, 77], [150, 20, 40]], float)


class Panel:
    """A picture of ``side`` x ``side`` pixels (or ``width`` x ``side``) over the given range, x to the right, y up."""

    def __init__(
        self,
        title: str,
        x: tuple[float, float] = (-4, 4),
        y: tuple[float, float] = (-4, 4),
        side: int = 320,
        width: int = 0,
    ) -> None:
        self.x, self.y, self.title = x, y, title
        self.size = (SCALE * (width or side), SCALE * side)
        self.image = Image.new("RGB", self.size, "white")
        self.draw = ImageDraw.Draw(self.image)

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return across * self.size[0], (1 - up) * self.size[1]

    def grid(self, count: int) -> Tensor:
        """The centres of count x count cells, (count^2, 2, 1, 1) float64, rows from the top."""
        xs = self.x[0] + (torch.arange(count, dtype=torch.float64) + 0.5) / count * (self.x[1] - self.x[0])
        ys = self.y[1] - (torch.arange(count, dtype=torch.float64) + 0.5) / count * (self.y[1] - self.y[0])
        rows, columns = torch.meshgrid(ys, xs, indexing="ij")
        return torch.stack([columns, rows], dim=-1).reshape(-1, 2, 1, 1)

    def map(self, values: npt.NDArray[np.floating], colours: npt.NDArray[np.floating] = PAPER_TO_INK) -> None:
        """Colour by values (rows from the top), 0 white to 1 dark."""
        at = np.clip(values, 0, 1) * (len(colours) - 1)
        low = np.minimum(at.astype(int), len(colours) - 2)
        mixed = colours[low] + (at - low)[..., None] * (colours[low + 1] - colours[low])
        picture = Image.fromarray(mixed.round().astype(np.uint8))
        self.image.paste(picture.resize(self.size, Image.Resampling.BILINEAR))

    def points(self, xy: Tensor, colour: tuple[int, int, int] = INK, radius: float = 1.5) -> None:
        r = radius * SCALE
        for x, y in xy.reshape(-1, 2).tolist():
            u, v = self.pixel(x, y)
            self.draw.ellipse((u - r, v - r, u + r, v + r), fill=colour)

    def line(self, xy: npt.NDArray[np.floating], colour: tuple[int, int, int] = INK, width: float = 1.0) -> None:
        self.draw.line([self.pixel(x, y) for x, y in xy], fill=colour, width=round(width * SCALE), joint="curve")

    def arrows(self, field: Callable[[Tensor], Tensor], count: int = 17, colour: tuple[int, int, int] = INK) -> None:
        """A field's direction at count^2 places; its length grows with the root of its strength."""
        places = self.grid(count)
        vectors = field(places).reshape(-1, 2)
        strength = vectors.norm(dim=1, keepdim=True)
        cell = (self.x[1] - self.x[0]) / count
        steps = (
            vectors / strength.clamp(min=1e-12) * 0.85 * cell * (strength / strength.quantile(0.95)).clamp(max=1).sqrt()
        )
        for start, step in zip(places.reshape(-1, 2).tolist(), steps.tolist(), strict=True):
            a = np.array(self.pixel(start[0] - step[0] / 2, start[1] - step[1] / 2))
            b = np.array(self.pixel(start[0] + step[0] / 2, start[1] + step[1] / 2))
            self.draw.line([tuple(a), tuple(b)], fill=colour, width=SCALE)
            back = (a - b) * min(0.4, 4 * SCALE / max(float(np.hypot(*(a - b))), 1e-9))
            side = 0.5 * np.array([-back[1], back[0]])
            self.draw.polygon([tuple(b), tuple(b + back + side), tuple(b + back - side)], fill=colour)


def sheet(panels: list[Panel], columns: int, name: str) -> Path:
    """Panels side by side with their titles, written to ``invsolve-examples/``."""
    font = ImageFont.load_default(size=13)
    width, height, gap, head = panels[0].size[0] // SCALE, panels[0].size[1] // SCALE, 14, 26
    rows = -(-len(panels) // columns)
    page = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + head) + gap), "white")
    for k, panel in enumerate(panels):
        left, top = gap + (k % columns) * (width + gap), head + (k // columns) * (height + head)
        picture = panel.image.resize((width, height), Image.Resampling.LANCZOS)
        page.paste(picture, (left, top))
        draw = ImageDraw.Draw(page)
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=(150, 150, 150))
        draw.text((left, top - 20), panel.title, fill=INK, font=font)
    OUT.mkdir(exist_ok=True)
    page.save(OUT / name)
    print(f"wrote {OUT / name}")
    return OUT / name


def strip(pictures: Tensor, columns: int, name: str, enlarge: int = 1) -> Path:
    """Pictures (n, C, H, W) in [0, 1] side by side."""
    from invsolve.pictures import to_pixels
    from invsolve.tasks.generation import grid

    image = Image.fromarray(to_pixels(grid(pictures.clamp(0, 1).cpu(), columns).permute(1, 2, 0).numpy()).squeeze())
    OUT.mkdir(exist_ok=True)
    image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST).save(OUT / name)
    print(f"wrote {OUT / name}")
    return OUT / name
