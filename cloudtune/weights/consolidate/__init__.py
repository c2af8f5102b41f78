"""Sharded checkpoints into one model: what is where, and how it is put together."""
