"""Training: the loop, the two methods, their loss and queue."""
