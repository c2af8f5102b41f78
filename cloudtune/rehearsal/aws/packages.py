"""SageMaker's model registry: groups of model packages, whose versions the service numbers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloudtune.rehearsal.aws.speech import invalid, page
from cloudtune.rehearsal.aws.training_limits import bucket_and_key
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.state import Resource

if TYPE_CHECKING:
    from cloudtune.rehearsal.aws.cloud import Asked, AwsCloud, Deed

GROUP, PACKAGE = "aws.package_group", "aws.package"
_SUMMARY = (
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "ModelPackageStatus",
    "ModelApprovalStatus",
)


class Packages:
    """The operations of model packages and their groups."""

    def __init__(self, cloud: AwsCloud) -> None:
        self.cloud = cloud
        self.store = cloud.stage.store
        self._creating = threading.Lock()
        self.operations: Mapping[str, Deed] = {
            "CreateModelPackageGroup": self.create_group,
            "DescribeModelPackageGroup": self.describe_group,
            "ListModelPackageGroups": self.list_groups,
            "DeleteModelPackageGroup": self.delete_group,
            "CreateModelPackage": self.create,
            "DescribeModelPackage": self.describe,
            "ListModelPackages": self.find,
            "DeleteModelPackage": self.delete,
        }

    def create_group(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Make a group."""
        name = given["ModelPackageGroupName"]
        arn = self._arn("model-package-group", name, asked)
        shown = {key: value for key, value in given.items() if key != "Tags"}
        shown |= {"ModelPackageGroupArn": arn, "CreationTime": self.cloud.now_s(), "CreatedBy": {}}
        try:
            self.store.add(GROUP, arn, {"shown": {**shown, "ModelPackageGroupStatus": "Completed"}, "last": 0})
        except KeyError:
            raise invalid(f"Model Package Group already exists: {arn}") from None
        return {"ModelPackageGroupArn": arn}

    def describe_group(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a group."""
        shown: dict[str, Any] = self._group(given["ModelPackageGroupName"], asked).data["shown"]
        return shown

    def list_groups(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a page of the groups whose names have a part."""
        rows = [one.data["shown"] for one in self.store.all(GROUP) if f":{asked.region}:" in one.id]
        part = given.get("NameContains", "")
        rows, more = page([row for row in rows if part in row["ModelPackageGroupName"]], given, usual=100)
        rows = [{key: row[key] for key in row if key != "CreatedBy"} for row in rows]
        return {"ModelPackageGroupSummaryList": rows, **more}

    def delete_group(self, given: Mapping[str, Any], asked: Asked) -> None:
        """Delete a group without packages."""
        group = self._group(given["ModelPackageGroupName"], asked)
        if self._packages(group):
            raise Refused(400, "ConflictException", "Model Package Group cannot be deleted: it has model packages.")
        self.store.remove(GROUP, group.id)

    def create(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Add a version to a group; a second request with the same token is the same version, or refused."""
        if "ModelPackageGroupName" not in given:
            raise invalid("rehearsed SageMaker knows packages of a group alone.")
        for container in (given.get("InferenceSpecification") or {}).get("Containers", ()):
            source = (container.get("ModelDataSource") or {}).get("S3DataSource")
            if source and next(iter(self.cloud.borrowed.objects(*bucket_and_key(source["S3Uri"]))), None) is None:
                raise invalid(f"Could not find model data at {source['S3Uri']}.")
        with self._creating:
            group = self._group(given["ModelPackageGroupName"], asked)
            token = given.get("ClientToken")
            for one in self.store.all(PACKAGE, lambda one: one.data["token"] == token) if token else ():
                if one.data["group"] != group.id:
                    raise invalid(f"ClientToken {token} was given with another request.")
                return {"ModelPackageArn": one.id}
            version = group.data["last"] + 1
            self.store.change(GROUP, group.id, last=version)
            arn = f"{self._arn('model-package', given['ModelPackageGroupName'], asked)}/{version}"
            shown = {key: value for key, value in given.items() if key not in {"Tags", "ClientToken"}}
            shown |= {
                "ModelPackageName": f"{given['ModelPackageGroupName']}/{version}",
                "ModelPackageArn": arn,
                "ModelPackageVersion": version,
                "CreationTime": self.cloud.now_s(),
                "ModelPackageStatus": "Completed",
                "ModelPackageStatusDetails": {"ValidationStatuses": []},
            }
            shown.setdefault("ModelApprovalStatus", "PendingManualApproval")
            self.store.add(PACKAGE, arn, {"shown": shown, "token": token, "group": group.id})
        return {"ModelPackageArn": arn}

    def describe(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a package."""
        shown: dict[str, Any] = self._package(given["ModelPackageName"]).data["shown"]
        # versions have no name of their own
        return {**shown, "ModelPackageName": shown["ModelPackageGroupName"]}

    def find(self, given: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Return a page of a group's packages, the newest first."""
        group = self._group(given.get("ModelPackageGroupName", ""), asked)
        rows = sorted((one.data["shown"] for one in self._packages(group)), key=lambda row: -row["ModelPackageVersion"])
        rows, more = page(rows, given, usual=10)
        return {"ModelPackageSummaryList": [{key: row[key] for key in _SUMMARY if key in row} for row in rows], **more}

    def delete(self, given: Mapping[str, Any], asked: Asked) -> None:
        """Delete a package; its number is not given again."""
        self.store.remove(PACKAGE, self._package(given["ModelPackageName"]).id)

    def _packages(self, group: Resource) -> tuple[Resource, ...]:
        return self.store.all(PACKAGE, lambda one: one.data["group"] == group.id)

    def _group(self, named: str, asked: Asked) -> Resource:
        name = named.rpartition("/")[2]
        found = self.store.get(GROUP, self._arn("model-package-group", name, asked))
        if found is None:
            raise invalid(f"ModelPackageGroup {named} does not exist.")
        return found

    def _package(self, arn: str) -> Resource:
        found = self.store.get(PACKAGE, arn)
        if found is None:
            raise invalid(f"ModelPackage {arn} does not exist.")
        return found

    def _arn(self, kind: str, name: str, asked: Asked) -> str:
        return f"arn:aws:sagemaker:{asked.region}:{self.cloud.account}:{kind}/{name}"
