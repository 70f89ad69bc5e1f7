"""Our kernels beside their peers."""
