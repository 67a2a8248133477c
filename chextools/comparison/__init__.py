"""What chex-compare is made of: two sides read, and the rows of their differences."""
