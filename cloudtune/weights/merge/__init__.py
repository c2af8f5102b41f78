"""LoRA adapters into their base: what they change, made tensor by tensor."""
