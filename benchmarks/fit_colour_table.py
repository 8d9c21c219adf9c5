"""Fit the colour table that stands beside colorization: mean chroma by luma and height of the training pictures.

python benchmarks/fit_colour_table.py photos-train.npz pretrained/photos/colour-table.json
"""

import sys
from pathlib import Path

from invsolve.tasks.baselines import ColourTable
from invsolve.training.sources import load_pictures

ColourTable.fit(load_pictures(sys.argv[1])).save(Path(sys.argv[2]))
