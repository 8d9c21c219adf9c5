"""Photographs: inpainting, colorization, new pictures, and the classical baselines beside them."""
