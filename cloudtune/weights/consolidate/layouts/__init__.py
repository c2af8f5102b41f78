"""Layouts of checkpoints: a module each recognises and reads those that one kind of training leaves."""
