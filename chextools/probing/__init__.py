"""Whether a heatmap follows the network: one file per probe, and what they share."""
