"""AWS's stand-in: its services on one port, told apart as AWS's own front doors do, by what a request is signed for.

``AWS_ENDPOINT_URL`` names the port, for the SDK, for s3fs and for the ``aws`` command alike. A request must be signed
by somebody whom the stand-in knows, is checked against botocore's own model of the service, and is refused in the
service's words. The ``aws`` and ``rehearse`` extras must be installed.

    cloud        the whole: who is known, which request is which operation, who answers it
    models       services as botocore describes them: operations, shapes; checker: any value against a shape
    speech       errors, times and request ids as the services have them
    signatures   who signed a request; principals: access keys, the roles of jobs
    training_jobs   SageMaker training jobs; training_limits: what the service refuses
    training_control, training_nodes, training_files   what leads one job, its nodes, its files from and to S3
    endpoints    SageMaker's models, configurations, endpoints; endpoint_containers: what images do with variables
    sagemaker_runtime   what endpoints answer
    packages     its model registry: groups and packages
    logs         CloudWatch Logs: late, and with pages that are empty though more follows
    imports      Bedrock's imports and imported models; import_limits: what is refused of their files
    bedrock_runtime   what imported models answer; serving: the nodes that serve a model
    rest         parameters in paths and headers; event_streams: replies in pieces
    clusters     EKS: where a cluster is, and who may enter it
    quotas       Service Quotas: how many instances of a type may run
    borrowed     what moto's server answers: S3, IAM, STS, ECR, Secrets Manager and whatever else it knows

A further service is a class with ``operations``, and a row here.
"""

from __future__ import annotations

from collections.abc import Mapping

#: The services that are the stand-in's own, by the name that requests are signed for, and their classes.
SERVICES: Mapping[str, tuple[str, ...]] = {
    "sagemaker": (
        "cloudtune.rehearsal.aws.training_jobs:TrainingJobs",
        "cloudtune.rehearsal.aws.endpoints:Endpoints",
        "cloudtune.rehearsal.aws.packages:Packages",
    ),
    "logs": ("cloudtune.rehearsal.aws.logs:Logs",),
    "sagemaker-runtime": ("cloudtune.rehearsal.aws.sagemaker_runtime:SageMakerRuntime",),
    "bedrock": ("cloudtune.rehearsal.aws.imports:Imports",),
    "bedrock-runtime": ("cloudtune.rehearsal.aws.bedrock_runtime:BedrockRuntime",),
    "eks": ("cloudtune.rehearsal.aws.clusters:Clusters",),
    "servicequotas": ("cloudtune.rehearsal.aws.quotas:Quotas",),
}
