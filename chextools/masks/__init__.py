"""Binary masks as runs of pixels, and what is computed on runs."""
