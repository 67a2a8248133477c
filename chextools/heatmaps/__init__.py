"""Heatmaps: their files, the surface they stand for at full size, and masks made of them."""
