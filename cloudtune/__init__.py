"""Fine-tune large models in anybody's cloud: describe the job once, run it anywhere."""
