"""The clouds' stand-ins on loopback: they speak the wire, and run the nodes of a job as processes of this machine.

Nothing here is imported by the rest of cloudtune: the real clients reach a stand-in over HTTP alone. The kernel knows
no cloud. A stand-in is a few :class:`~cloudtune.rehearsal.routes.Service` values, a store and controllers on a
:class:`~cloudtune.rehearsal.stage.Stage`; ``tests/rehearsal/echo_cloud.py`` is a whole one in a hundred lines.

    stage        a server, a store, controllers and nodes that begin and end together
    server       HTTP on loopback: messages in and out, routes to handlers, a record of every call
    faults       what goes wrong, at which call
    nodes        a node with paths, names and addresses of its own; runner: it as a process tree
    state, clock what a stand-in remembers, and a clock that can be sped up
    identity     throw-away credentials, and the environment in which real clients see nothing else
"""
