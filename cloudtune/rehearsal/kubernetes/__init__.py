"""A stand-in of a Kubernetes cluster: an API server that clients and ``kubectl`` talk to, and what stands behind it.

What a cluster does by itself is done here as well: pods are processes of this machine, led by the same controllers.

    cluster      the whole: who is known, what is served, what acts by itself
    objects      the objects: made, changed, deleted, followed by everybody; kinds: which there are
    api          what the server answers; targets: what a request aims at; writes, watches, pod_logs: parts of it
    discovery    what it says of itself; tables: what ``kubectl get`` prints; forms: bodies and answers
    access       users, tokens, rights; speech: how refusals are worded
    validation   what is refused: fields by tables, rules of names, pods and jobs by hand; defaults
    installed    the operators, and what they bring
    control      the deeds by which nodes come and go; loop: the thread in which controllers are asked
    scheduler    where pods go, fitting: and why they do not; machines: nodes by instance types
    kubelet      pods as processes: pod_run, container_start, pod_volumes, pod_environment, pod_status, container_logs
    names        the DNS of pods and services; claims: volumes; node_lifecycle: lost nodes; garbage: what has no owner
    job, jobset, pytorch, trainjob_controller and their parts; kueue: queues
    surroundings what pods have of this machine; timing: how long things take
"""
