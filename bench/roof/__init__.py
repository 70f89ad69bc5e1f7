"""This machine's ceilings: rates of its device, and all-reduce between ranks as alpha and beta."""
