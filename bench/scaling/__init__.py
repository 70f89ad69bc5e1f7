"""Training steps of several ranks, as jobs of a cluster or as processes here."""
