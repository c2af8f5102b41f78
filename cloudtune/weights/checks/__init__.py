"""Whether a model can be served in a place: everything that is wrong with it, at once, and what to do about it.

Models are read where they lie: of a model in a bucket, only small files and ranges of its shards are fetched.
"""
