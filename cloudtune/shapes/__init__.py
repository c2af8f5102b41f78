"""What a machine is: accelerators, memory, Neuron cores, EFA and RDMA, as data files with their sources."""

from cloudtune.shapes.catalogue import CLOUDS, Shape, UnknownShape, find, names

__all__ = ["CLOUDS", "Shape", "UnknownShape", "find", "names"]
