"""The memory that a training job needs, from the model's config.json alone: no torch, no numpy, no network."""
