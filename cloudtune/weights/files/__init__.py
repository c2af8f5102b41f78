"""Models in files: what lies where, read by ranges, and described as pieces before it is written."""
