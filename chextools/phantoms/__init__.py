"""Made-up chest X-rays: a body is laid out, findings change it, and rays through it become a picture."""
