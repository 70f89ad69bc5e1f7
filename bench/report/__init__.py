"""One self-contained page about a finished recipe."""
