"""Throughput and hours of a distillation before it runs, and how far such predictions were off."""
