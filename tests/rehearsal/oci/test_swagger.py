"""Requests against the SDK's models: what is right passes, everything else is named."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudtune.rehearsal.messages import Refused

pytest.importorskip("oci", reason="the oci SDK is not installed")
from cloudtune.rehearsal.oci import job_limits
from cloudtune.rehearsal.oci.swagger import Checker, fields_of

MACHINE = {"jobInfrastructureType": "ME_STANDALONE", "shapeName": "VM.GPU.A10.1", "blockStorageSizeInGBs": 50}
JOB: dict[str, Any] = {
    "projectId": "p",
    "compartmentId": "c",
    "freeformTags": {"a": "b"},
    "definedTags": {"Operations": {"CostCenter": 42}},
    "jobConfigurationDetails": {"jobType": "DEFAULT", "environmentVariables": {"A": "1"}},
    "jobInfrastructureConfigurationDetails": MACHINE,
    "jobStorageMountConfigurationDetailsList": [
        {"storageType": "OBJECT_STORAGE", "destinationDirectoryName": "d", "namespace": "n", "bucket": "b"}
    ],
}


def check(body: Any, model: str = "CreateJobDetails", module: str = "data_science") -> Any:
    return Checker(module).value("", model, body)


def test_what_is_right_passes_without_its_nulls() -> None:
    assert check({**JOB, "description": None}) == JOB


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"colour": "red"}, "CannotParseRequest", "colour is no field of CreateJobDetails"),
        ({"projectId": None}, "InvalidParameter", "projectId must not be null"),
        ({"displayName": 3}, "InvalidParameter", "displayName must be str, not 3"),
        ({"freeformTags": {"a": 1}}, "InvalidParameter", "freeformTags.a must be str"),
        ({"freeformTags": ["a"]}, "InvalidParameter", "freeformTags must be dict"),
        ({"jobConfigurationDetails": {}}, "InvalidParameter", "jobConfigurationDetails.jobType must not be null"),
        ({"jobConfigurationDetails": {"jobType": "SLOW"}}, "InvalidParameter", "jobType is none that"),
        (
            {"jobConfigurationDetails": {"jobType": "EMPTY", "environmentVariables": {}}},
            "CannotParseRequest",
            "environmentVariables is no field of EmptyJobConfigurationDetails",
        ),
        (
            {"jobInfrastructureConfigurationDetails": {**MACHINE, "blockStorageSizeInGBs": "50"}},
            "InvalidParameter",
            "blockStorageSizeInGBs must be int",
        ),
        (
            {"jobInfrastructureConfigurationDetails": {**MACHINE, "blockStorageSizeInGBs": True}},
            "InvalidParameter",
            "blockStorageSizeInGBs must be int",
        ),
        (
            {"jobStorageMountConfigurationDetailsList": [JOB["jobStorageMountConfigurationDetailsList"][0], {}]},
            "InvalidParameter",
            r"DetailsList\[1\].storageType must not be null",
        ),
        (
            {"jobNodeConfigurationDetails": {"jobNodeType": "MULTI_NODE", "startupOrder": "AT_ONCE"}},
            "InvalidParameter",
            "startupOrder must be one of IN_ORDER, IN_PARALLEL",
        ),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as refusal:
        check({**JOB, **changes})
    assert (refusal.value.status, refusal.value.code) == (400, code)


def test_bodies_and_times_of_other_services() -> None:
    wanted = {"timeStart": "2026-11-20T10:00:00.5Z", "timeEnd": "2026-11-20T11:00:00+02:00", "searchQuery": "x"}
    assert check(wanted, "SearchLogsDetails", "loggingsearch") == wanted
    for wrong in ("2026-11-20 10:00", "2026-13-20T10:00:00Z", "2026-11-20T10:00:00"):
        with pytest.raises(Refused, match=r"timeEnd: '.*' is not a time"):
            check({**wanted, "timeEnd": wrong}, "SearchLogsDetails", "loggingsearch")
    with pytest.raises(Refused, match="the body must be an object"):
        check(["x"], "SearchLogsDetails", "loggingsearch")


def test_allowed_values_are_the_models_own() -> None:
    types = {
        field.name: field for field in fields_of("data_science", "OcirContainerJobEnvironmentConfigurationDetails")
    }
    assert types["jobEnvironmentType"].allowed == ("OCIR_CONTAINER",)
    assert (types["image"].required, types["cmd"].type, types["cmd"].required) == (True, "list[str]", False)


def test_what_ads_sends_passes(shared: Path) -> None:
    """Of all that Oracle ADS makes of the shared cases, one job lacks what its model requires."""
    anything = SimpleNamespace(check_exists=lambda *_: None)
    failed, count = {}, 0
    models = {"create_job": "CreateJobDetails", "create_job_run": "CreateJobRunDetails"}
    for case in sorted((shared / "oracle" / "oci").iterdir()):
        for name, model in models.items():
            for file in case.glob(f"{name}*.json"):
                if name == "create_job" and file.name.startswith("create_job_run"):
                    continue
                sent = json.loads(file.read_text())
                for body in sent if isinstance(sent, list) else [sent]:
                    count += 1
                    try:
                        details = check(body, model)
                        if model == "CreateJobDetails":
                            job_limits.check_job(anything, details)  # type: ignore[arg-type]
                    except Refused as why:
                        failed[case.name, file.name] = why.message
    assert count > 50
    assert list(failed) == [("46-x-run-overrides-ddp", "create_job.json")]
    assert "blockStorageSizeInGBs must not be null" in failed["46-x-run-overrides-ddp", "create_job.json"]
