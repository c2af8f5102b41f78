"""A stand-in of Bedrock to file models in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cloudtune
from tests.aws_place import AwsPlace
from tests.weights.checks.checkable import change, write_model


class Filing:
    """A stand-in, and the user's profile of it."""

    def __init__(self, place: AwsPlace, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.client = place.sdk("bedrock")
        self.profile()

    def profile(self, **changes: str) -> None:
        spec = {"region": "us-west-2", "roleArn": self.place.role, **changes}
        path = self.folder / "config" / "mine.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"kind": "infrastructure", "type": "sageMakerTrainingJob", "spec": spec}))

    def model(self, name: str = "m", **config: Any) -> Path:
        folder = self.folder / name
        if not folder.exists():
            write_model(folder)
            change(folder / "config.json", **config)
        return folder

    def file(self, model: str | Path, **options: Any) -> Any:
        return cloudtune.register(str(model), **{"to": "bedrock", "name": "llama", **options})

    def models(self) -> list[str]:
        return sorted(one["modelName"] for one in self.client.list_imported_models()["modelSummaries"])

    def jobs(self) -> list[Any]:
        return list(self.client.list_model_import_jobs(maxResults=100)["modelImportJobSummaries"])
