"""Tell whether a chest X-ray classifier looks where radiologists look."""

__version__ = "0.1.0"
