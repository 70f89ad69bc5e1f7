"""What a cluster is like, and what it says."""
