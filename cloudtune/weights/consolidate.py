"""Sharded checkpoints into one Hugging Face model: what is where is found out first, then bytes are copied.

Each layout has a module with two functions, and a row in the table here::

    def recognise(folder: Folder) -> bool
    def read(folder: Folder, opened: ExitStack, *, config: Mapping[str, Any]) -> Checkpoint

``recognise`` goes by the names of files alone. ``read`` reads metadata, makes all checks, and describes every tensor
as pieces of files that stay open until ``opened`` ends; it raises UsageError for whatever does not fit together.
``config`` is the config.json of the base, or of the checkpoint if it has one, else empty.
"""
