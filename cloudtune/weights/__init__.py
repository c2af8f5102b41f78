"""Checkpoints and adapters, made into one Hugging Face model."""
