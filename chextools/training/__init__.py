"""What chex-train is made of: labels, images, augmentation, the optimiser's schedule, and the run's folder."""
