"""Sends jobs, and sends them again."""
