"""Decode, crop, augment: ours beside other loaders."""
