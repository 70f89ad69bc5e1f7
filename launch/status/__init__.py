"""What became of the jobs that were sent."""
