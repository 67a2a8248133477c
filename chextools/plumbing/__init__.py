"""What any unix command needs, and nothing of X-rays: files, streams, pickles, parallel work."""
