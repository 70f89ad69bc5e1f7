"""Images: where they come from, whether they are sound, how they are stored and read."""
