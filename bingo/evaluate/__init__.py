"""Accuracy of frozen features."""
