"""Bags: for every image the images that belong to it."""
