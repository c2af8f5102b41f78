"""What runs on a node: the agent, ranks, code, outputs, the failure report. Standard library only, Python 3.9+."""
