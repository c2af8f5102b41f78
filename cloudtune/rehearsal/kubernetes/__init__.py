"""A stand-in of a Kubernetes cluster: an API server that clients and ``kubectl`` talk to, and what stands behind it.

kinds        which kinds of objects are served, and by which operator
objects      the objects: made, changed, deleted, followed by everybody
selectors    which of them a list or a watch is about; speech: how refusals are worded
"""
