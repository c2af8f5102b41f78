"""What the files of models and adapters are called."""

from __future__ import annotations

CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_SINGLE = "adapter_model.safetensors"
#: The model's card, as the Hub shows it.
CARD = "README.md"
#: What a training of cloudtune leaves beside an adapter or a model.
TRAINING, METRICS = "training.json", "metrics.json"
#: The record that is kept with every model made here, always written last.
RECORD = "cloudtune.json"
#: How the names of files end that are not whole yet.
UNFINISHED = ".part"
