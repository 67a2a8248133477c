"""The record: what commands pass to each other, one per image."""
