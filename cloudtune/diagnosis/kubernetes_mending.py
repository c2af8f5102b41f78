"""What to run where a cluster lacks something: the commands of infrastructure/eks, by what is missing."""

from __future__ import annotations

from collections.abc import Mapping

from cloudtune.diagnosis.kubernetes_questions import POLICIES

#: The versions that infrastructure/eks is written for.
VERSIONS: Mapping[str, str] = {
    "nvidia": "0.20.0",
    "neuron": "1.9.0",
    "efa": "v0.5.30",
    "training-operator": "v1.9.4",
    "trainer": "2.3.0",
    "jobset": "0.12.0",
    "kueue": "0.19.2",
    "prometheus": "88.5.3",
    "dcgm": "4.8.2",
}


def _helm(release: str, chart: str, namespace: str, version: str, values: str = "", repository: str = "") -> str:
    parts = [f"helm upgrade --install {release} {chart}"]
    parts += [f"--repo {repository}"] if repository else []
    parts += [f"--version {version} --namespace {namespace} --create-namespace"]
    parts += [f"--values {POLICIES}/{values}"] if values else []
    return " ".join(parts)


#: By resource of nodes: what makes them offer it.
PLUGINS: Mapping[str, str] = {
    "nvidia.com/gpu": _helm(
        "nvidia-device-plugin",
        "nvidia-device-plugin",
        "kube-system",
        VERSIONS["nvidia"],
        "plugins/nvidia.yaml",
        "https://nvidia.github.io/k8s-device-plugin",
    ),
    "aws.amazon.com/neuron": _helm(
        "neuron",
        "oci://public.ecr.aws/neuron/neuron-helm-chart",
        "kube-system",
        VERSIONS["neuron"],
        "plugins/neuron.yaml",
    ),
    "vpc.amazonaws.com/efa": _helm(
        "efa",
        "aws-efa-k8s-device-plugin",
        "kube-system",
        VERSIONS["efa"],
        "plugins/efa.yaml",
        "https://aws.github.io/eks-charts",
    ),
}
PLUGINS = {**PLUGINS, "aws.amazon.com/neuroncore": PLUGINS["aws.amazon.com/neuron"]}

#: By group of the API: what makes a cluster serve it.
OPERATORS: Mapping[str, str] = {
    "kubeflow.org": f"kubectl apply --server-side -k {POLICIES}/operators/training-operator",
    "trainer.kubeflow.org": _helm(
        "trainer",
        "oci://ghcr.io/kubeflow/charts/kubeflow-trainer",
        "kubeflow-system",
        VERSIONS["trainer"],
        "operators/trainer.yaml",
    ),
    "jobset.x-k8s.io": _helm(
        "jobset",
        "oci://registry.k8s.io/jobset/charts/jobset",
        "jobset-system",
        VERSIONS["jobset"],
        "operators/jobset.yaml",
    ),
    "kueue.x-k8s.io": _helm(
        "kueue",
        "oci://registry.k8s.io/kueue/charts/kueue",
        "kueue-system",
        VERSIONS["kueue"],
        "operators/kueue.yaml",
    ),
}

#: By driver of volumes: what installs it. The first four are add-ons of EKS.
DRIVERS: Mapping[str, str] = {
    driver: f"eksctl create addon --cluster CLUSTER --name {addon}"
    for driver, addon in (
        ("fsx.csi.aws.com", "aws-fsx-csi-driver"),
        ("ebs.csi.aws.com", "aws-ebs-csi-driver"),
        ("efs.csi.aws.com", "aws-efs-csi-driver"),
        ("s3.csi.aws.com", "aws-mountpoint-s3-csi-driver"),
    )
}

#: Grants the rights of a feature.
RIGHTS = f"kubectl apply -k {POLICIES}/rights"
#: Makes the queues of infrastructure/eks.
QUEUES = f"kubectl apply -k {POLICIES}/queues"
#: Makes a volume that several nodes share.
VOLUME = f"kubectl apply -k {POLICIES}/storage"


def for_cluster(command: str, cluster: str | None, region: str | None) -> str:
    """Return a command of eksctl with the cluster's name, as far as it is known."""
    named = f"--cluster {cluster or '<cluster>'}" + (f" --region {region}" if region else "")
    return command.replace("--cluster CLUSTER", named)
