"""`bingo bench profile`: a profiler's window on a real training, and what its trace says."""
