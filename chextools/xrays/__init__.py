"""X-rays: header and pixels of an image, whatever file it is in, and packs of them."""
