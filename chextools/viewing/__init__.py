"""What chex-view is made of: panels of a record and its truth, drawn."""
