"""Training scripts that run on nodes as they are; a recipe NAME is the folder NAME with the entry NAME.py.

They import torch, transformers and their neighbours, never cloudtune: a folder is shipped whole as the job's code.
"""
