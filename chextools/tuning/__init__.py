"""What chex-tune is made of: the settings, what each image says, and the choice per task."""
