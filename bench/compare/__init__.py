"""Two results, or two checkouts, against each other."""
