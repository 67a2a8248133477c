"""Networks: architectures, checkpoints, the graph that a checkpoint carries, and how images go through them."""
