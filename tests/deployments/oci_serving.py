"""A stand-in of OCI in which a model is filed, and images that serve it without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cloudtune
from tests.oci_place import OciPlace
from tests.registries.models import merged
from tests.rehearsal.oci.serving import CHAT

IMAGE = "iad.ocir.io/ns/vllm:1"
MANAGED = "dsmc://odsc-vllm-serving:0.11.0"
SHAPE = "VM.GPU.A10.2"


class Serving:
    """A stand-in in which a model is filed, as ``llama``."""

    def __init__(self, place: OciPlace, folder: Path) -> None:
        from cloudtune.rehearsal.oci.model_deployments import Deployments

        self.place, self.folder = place, folder
        self.client = place.sdk("data_science", "DataScienceClient")
        self.profile()
        images = place.cloud.part(Deployments).entrypoints
        images |= dict.fromkeys((IMAGE, MANAGED), ("python3", "-c", CHAT))
        cloudtune.register(str(merged(folder / "m")), to="oci", name="llama")

    def profile(self, **changes: str) -> None:
        spec = {"compartmentId": self.place.compartment, "projectId": self.place.project, **changes}
        path = self.folder / "config" / "mine.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"kind": "infrastructure", "type": "dataScienceJob", "spec": spec}))

    def deploy(self, model: str = "llama", **options: Any) -> Any:
        return cloudtune.deploy(model, to="oci", **{"shape": SHAPE, "image": IMAGE, **options})

    def deployments(self) -> list[Any]:
        found = self.client.list_model_deployments(self.place.compartment).data
        return [one for one in found if one.lifecycle_state not in ("DELETED", "DELETING")]

    def details(self) -> Any:
        return self.deployments()[0].model_deployment_configuration_details
