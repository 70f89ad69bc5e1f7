"""Queue-softmax and augmentation kernels. A leaf: torch and triton only."""
