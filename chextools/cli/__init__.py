"""The commands: options to one call to print. Only here is click, and only here does anything print or exit."""
