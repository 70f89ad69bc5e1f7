"""Distil a frozen self-supervised vision teacher into a small encoder (BINGO, arXiv 2107.01691)."""

__version__ = "0.1.0"
