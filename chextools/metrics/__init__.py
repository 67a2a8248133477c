"""One file per metric or family, and the bootstrap. No reading, no printing."""
