"""Accuracy of frozen features, and weights for others."""
