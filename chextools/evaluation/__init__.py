"""What chex-eval is made of: what one image says, and the rows that all of them make."""
