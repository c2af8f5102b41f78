"""A stand-in of a Kubernetes cluster: an API server that clients and ``kubectl`` talk to, and what stands behind it.

    cluster      the whole: who is known, what is served, what acts by itself
    objects      the objects: made, changed, deleted, followed by everybody; kinds: which there are
    api          what the server answers; targets: what a request aims at; writes, watches, pod_logs: parts of it
    discovery    what it says of itself; tables: what ``kubectl get`` prints; forms: bodies and answers
    access       users, tokens, rights; speech: how refusals are worded
    validation   what is refused: fields by tables, rules of names, pods and jobs by hand; defaults
    installed    the operators, and what they bring
    control      controllers, scheduler, kubelets
"""
