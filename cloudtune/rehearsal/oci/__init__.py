"""Oracle Cloud's stand-in: its services on one port, told apart by the base paths that the SDK appends by itself.

``CLOUDTUNE_OCI_ENDPOINT`` (and ``oci --endpoint``) names the port. A request must be signed by somebody whom the
stand-in knows, is checked against the SDK's own models and the service's documented limits, and is refused in the
service's words. The ``oci`` extra must be installed: the models are read from it when the first request comes.

    cloud        the whole: who is known, what exists, the services of the table below on one port
    speech       errors, headers, times and entity tags as the services have them; lists: pages, filters, order
    swagger      any request against any model of the SDK; tokens: a request that is sent again
    signatures   who signed a request; principals: API keys, session tokens, resource principals
    jobs         Data Science jobs and their artifacts; job_runs: their runs; run_control, job_nodes: what runs
    models       the model catalog; model_artifacts: what models consist of; version_sets; works: work requests
    model_deployments   models that answer; serving: their nodes; predictions: their paths
    logs         log groups and logs; log_search: what was written, late, twice and out of order
    buckets      Object Storage: buckets; objects; uploads in parts; copies; mounts: a bucket as a node's folder
    shelves      what lies in a bucket; blobs: bytes
    vault        secrets and their values; monitoring: numbers that jobs post, and queries over them
    neighbours   what a job presupposes: projects, sessions, networks, limits, images; finder: things by a text
    instances    a compute instance's metadata, and tokens for it

A further service is a class with ``routes()``, and a row here.
"""

from __future__ import annotations

from collections.abc import Mapping

#: The services by the names that plans give them, and the classes that carry out their operations.
SERVICES: Mapping[str, tuple[str, ...]] = {
    "oci.data_science": (
        "cloudtune.rehearsal.oci.jobs:Jobs",
        "cloudtune.rehearsal.oci.job_runs:JobRuns",
        "cloudtune.rehearsal.oci.neighbours:Projects",
        "cloudtune.rehearsal.oci.neighbours:Sessions",
        "cloudtune.rehearsal.oci.works:Works",
        "cloudtune.rehearsal.oci.version_sets:VersionSets",
        "cloudtune.rehearsal.oci.models:Models",
        "cloudtune.rehearsal.oci.model_artifacts:Artifacts",
        "cloudtune.rehearsal.oci.model_deployments:Deployments",
    ),
    "oci.model_deployment": ("cloudtune.rehearsal.oci.predictions:Predictions",),
    "oci.logging": (
        "cloudtune.rehearsal.oci.logs:Logs",
        "cloudtune.rehearsal.oci.log_search:LogSearch",
    ),
    "oci.object_storage": (
        "cloudtune.rehearsal.oci.buckets:Buckets",
        "cloudtune.rehearsal.oci.objects:Objects",
        "cloudtune.rehearsal.oci.uploads:Uploads",
        "cloudtune.rehearsal.oci.copies:Copies",
    ),
    "oci.vault": ("cloudtune.rehearsal.oci.vault:Vault",),
    "oci.secrets": ("cloudtune.rehearsal.oci.vault:Bundles",),
    "oci.monitoring": ("cloudtune.rehearsal.oci.monitoring:Monitoring",),
    "oci.identity": ("cloudtune.rehearsal.oci.tenancy:Tenancy",),
    "oci.auth": ("cloudtune.rehearsal.oci.instances:Instances",),
    "oci.core": ("cloudtune.rehearsal.oci.neighbours:Networks",),
    "oci.resource_search": ("cloudtune.rehearsal.oci.finder:Finder",),
    "oci.limits": ("cloudtune.rehearsal.oci.neighbours:Limits",),
    "oci.artifacts": ("cloudtune.rehearsal.oci.neighbours:Images",),
}
