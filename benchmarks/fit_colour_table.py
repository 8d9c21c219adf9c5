"""Fit the colour table that stands beside colorization: mean chroma by luma and height of the training pictures.

python benchmarks/fit_colour_table.py photos-train.npz pretrained/photos/colour-table.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from invsolve.tasks.baselines import ColourTable
from invsolve.training.sources import load_pictures


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", help="training pictures: folder or .npz")
    parser.add_argument("table", type=Path, help="where the table goes")
    chosen = parser.parse_args(argv)
    ColourTable.fit([np.asarray(picture, np.uint8) for picture in load_pictures(chosen.pictures)]).save(chosen.table)


if __name__ == "__main__":
    main()
