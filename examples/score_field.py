"""The score of a mixture, and of the mixture blurred by noise: arrows uphill in log density, over the density.

Run from the repository: python examples/score_field.py
"""

from drawing import Panel, sheet
from mixture import THREE

panels = []
for sigma in (0.05, 0.5, 1.5):
    panel = Panel(f"density and score, noise {sigma:g}")
    density = THREE.log_density(panel.grid(160), sigma).exp().reshape(160, 160).numpy()
    panel.map((density / density.max()) ** 0.5)
    panel.arrows(lambda x, sigma=sigma: THREE.score(x, sigma))
    panels.append(panel)
sheet(panels, 3, "score-field.png")
