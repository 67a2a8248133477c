"""Saliency methods, one file each, of one signature; `methods` is their register."""
