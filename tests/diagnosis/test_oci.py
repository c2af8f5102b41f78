"""What a job presupposes on Oracle Cloud, asked of the stand-in with the user's own rights."""

from __future__ import annotations

import json
import os

import pytest

from cloudtune import rights
from cloudtune.diagnosis import document, places
from cloudtune.diagnosis.checks import Surroundings, carried_out
from tests.oci_place import OciPlace, oci_place

pytest.importorskip("oci", reason="the oci SDK is not installed")

from cloudtune.diagnosis import oci_network, questions
from cloudtune.rehearsal.oci import neighbours
from cloudtune.rehearsal.oci.buckets import Buckets
from cloudtune.rehearsal.oci.logs import Logs
from cloudtune.rehearsal.oci.ocids import new_ocid
from cloudtune.rehearsal.oci.vault import Vault

LOG, SECRET = new_ocid("log"), new_ocid("vaultsecret")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """Return one stand-in for all tests: only questions are asked, and what is staged differently is put back."""
    with oci_place(tmp_path_factory.mktemp("oci")) as place:
        logs = place.cloud.part(Logs)
        group = {"compartmentId": place.compartment, "displayName": "training"}
        logs.add_group(group, identity=place.log_group)
        logs.add_log(place.log_group, {"displayName": "jobs"}, identity=LOG)
        place.cloud.part(Buckets).make("outputs", compartment_id=place.compartment)
        place.cloud.part(Vault).put(SECRET, "the value that nobody asks for")
        yield place


@pytest.fixture
def place(cloud, monkeypatch):
    """Return the stand-in as it was staged at first."""
    kinds = (neighbours.Projects, neighbours.Networks, neighbours.Sessions)
    parts = [cloud.cloud.part(kind) for kind in kinds]
    yield cloud
    for part in parts:
        part.said.clear()
    cloud.cloud.part(neighbours.Limits).left.clear()
    cloud.cloud.part(neighbours.Images).tags.clear()
    cloud.cloud.absent.clear()


def spec(place: OciPlace, **changes):
    """Return the infrastructure of a job that has all that it needs."""
    given = {
        "compartmentId": place.compartment,
        "projectId": place.project,
        "subnetId": place.subnet,
        "logGroupId": place.log_group,
        "logId": LOG,
        "shapeName": "VM.GPU.A10.2",
        "storageMount": [{"src": f"oci://outputs@{namespace(place)}/llama/", "dest": "outputs"}],
        **changes,
    }
    return {key: value for key, value in given.items() if value is not None}


def namespace(place: OciPlace) -> str:
    return place.cloud.part(Buckets).namespace


def look(place, folder, *, write=False, runtime=None, kind="pyTorchDistributed", environ=None, **changes):
    """Return what is found for a job, as (status, check, message, hint)."""
    what = {"command": "torchrun train.py", "replicas": 2, **(runtime or {})}
    if kind == "container":
        what.pop("command")
    data = {
        "name": "j",
        "infrastructure": {"kind": "infrastructure", "type": "dataScienceJob", "spec": spec(place, **changes)},
        "runtime": {"kind": "runtime", "type": kind, "spec": what},
    }
    file = folder / "job.json"
    file.write_text(json.dumps({"kind": "job", "spec": data}))
    known = {**os.environ, **(environ or {})}
    found = document.read(file, environ=known)
    assert found.subjects, found.findings
    return carried_out(places.checks(found.subjects, Surroundings(environ=known, write=write)))


def of(findings, check):
    return [(one.status, one.message) for one in findings if one.check == check]


def wrong(findings):
    return [(one.status, one.check, one.message) for one in findings if one.status != "ok"]


def test_a_job_that_has_everything_has_nothing_to_be_told(place, tmp_path):
    found = look(place, tmp_path, runtime={"env": [{"name": "HF_TOKEN", "secret": SECRET}]})
    assert wrong(found) == []
    assert [one.check for one in found] == [
        *("oci", "compartment", "project", "shape", "limits", "network", "network", "network"),
        *("logs", "logs", "storage", "secrets"),
    ]
    assert of(found, "oci") == [("ok", "you ask with an API key, region us-ashburn-1")]
    assert of(found, "limits") == [
        ("ok", "the job takes 4 GPUs of VM.GPU.A10.2, and 1000 are left of limit ds-gpu-a10-count")
    ]
    assert of(found, "network")[1] == ("ok", "nodes in subnet rehearsed-subnet reach each other on all ports")
    assert of(found, "storage") == [("ok", f"bucket outputs of {namespace(place)} exists; it is mounted")]


def test_only_questions_are_asked_and_no_secret_is_read(place, tmp_path):
    before = len(place.stage.record.calls)
    look(place, tmp_path, runtime={"env": [{"name": "HF_TOKEN", "secret": SECRET}]})
    asked = [(one.method, one.operation) for one in place.stage.record.calls[before:]]
    assert {method for method, _ in asked} == {"GET"}
    assert "get_secret" in {operation for _, operation in asked}
    assert "get_secret_bundle" not in {operation for _, operation in asked}


def test_what_is_missing_or_hidden_names_its_statement(place, tmp_path):
    kinds = {"projectId": "datascienceproject", "subnetId": "subnet", "logGroupId": "loggroup"}
    gone = {key: new_ocid(kind) for key, kind in kinds.items()}
    place.cloud.absent.update(gone.values())
    problems = [one for one in look(place, tmp_path, **gone) if one.status == "problem"]
    expected = (
        ("project", "projectId", "users.projects"),
        ("network", "subnetId", "users.network"),
        ("logs", "logGroupId", "users.log_groups"),
    )
    for problem, (check, key, right) in zip(problems, expected, strict=True):
        assert (problem.check, problem.where) == (check, f"spec.infrastructure.spec.{key}")
        assert problem.message.endswith(f"{gone[key]} does not exist, or you may not see it")
        granted = rights.rights()[right]
        statement = granted.statement({"compartment": place.compartment})
        assert problem.statements == (statement,)
        assert f"infrastructure/oci, feature {granted.feature}): {statement}" in problem.hint


def test_a_compartment_that_is_not_shown_is_unknown_alone(place, tmp_path):
    place.cloud.absent.add(place.compartment)
    found = look(place, tmp_path)
    assert of(found, "compartment") == [("unknown", f"you may not see compartment {place.compartment}")]


def test_a_log_must_be_in_its_group_and_enabled(place, tmp_path):
    other = new_ocid("log")
    place.cloud.absent.add(other)
    (problem,) = [one for one in look(place, tmp_path, logId=other) if one.status == "problem"]
    assert problem.message == f"log {other} of that group does not exist, or you may not see it"
    disabled = place.cloud.part(Logs).add_log(place.log_group, {"displayName": "off", "isEnabled": False})
    assert ("problem", "log off is not enabled") in of(look(place, tmp_path, logId=disabled), "logs")


def test_things_of_other_compartments_are_pointed_out(place, tmp_path):
    there = new_ocid("compartment")
    place.cloud.part(neighbours.Projects).said[place.project] = {"compartmentId": there}
    place.cloud.part(neighbours.Networks).said[place.subnet] = {"compartmentId": place.compartment}
    (warning,) = wrong(look(place, tmp_path))
    assert warning == ("warning", "project", f"the project lies in another compartment than the job: {there}")


def test_things_on_their_way_out_cannot_be_used(place, tmp_path):
    place.cloud.part(neighbours.Projects).said[place.project] = {"lifecycleState": "DELETING"}
    assert wrong(look(place, tmp_path)) == [("problem", "project", "project rehearsed-datascienceproject is DELETING")]


def test_shapes_that_jobs_cannot_have_are_answered_with_the_nearest(place, tmp_path):
    accelerator = {"name": "A10", "count": 2}
    found = look(place, tmp_path, shapeName="VM.GPU.A10.3", accelerator=accelerator)
    (problem,) = [one for one in found if one.check == "shape"]
    assert (problem.status, problem.message) == ("problem", "jobs cannot have VM.GPU.A10.3 in this region")
    assert problem.hint.startswith("did you mean VM.GPU.A10.")


def test_what_is_left_of_a_limit_must_be_enough(place, tmp_path):
    place.cloud.part(neighbours.Limits).left["ds-gpu-a10-count"] = 3
    (problem,) = [one for one in look(place, tmp_path) if one.check == "limits"]
    assert problem.message == "the job takes 4 GPUs of VM.GPU.A10.2, and 3 are left of limit ds-gpu-a10-count"
    assert "ask for a higher limit" in problem.hint
    (unknown,) = [one for one in look(place, tmp_path, shapeName="BM.GPU.H100.8") if one.check == "limits"]
    assert unknown.message == "the job takes 16 GPUs of BM.GPU.H100.8; what is left of its limit is not known here"


CLOSED = [{"protocol": "6", "source": "10.60.0.0/20", "tcpOptions": {"destinationPortRange": {"min": 22, "max": 22}}}]


@pytest.mark.parametrize(
    ("rule", "opens"),
    [
        ({"protocol": "all", "source": "10.0.0.0/8"}, True),
        ({"protocol": "6", "source": "10.60.0.0/16"}, True),
        ({"protocol": "all", "source": "10.60.0.0/24"}, False),
        ({"protocol": "all", "source": "all-iad-services-in-oracle-services-network"}, False),
        ({"protocol": "17", "source": "0.0.0.0/0"}, False),
        (CLOSED[0], False),
    ],
)
def test_a_rule_opens_a_subnet_to_itself_or_not(rule, opens):
    assert oci_network._lets_all_in(rule, "10.60.0.0/20") is opens


def test_nodes_must_reach_each_other_on_all_ports(place, tmp_path):
    networks = place.cloud.part(neighbours.Networks)
    networks.said[networks.security_list] = {"ingressSecurityRules": CLOSED}
    (problem,) = [one for one in look(place, tmp_path) if one.status == "problem"]
    message = "no security list of subnet rehearsed-subnet lets its nodes reach each other on all ports"
    assert problem.message == message
    assert "add an ingress rule: all protocols from 10.60.0.0/20" in problem.hint
    assert wrong(look(place, tmp_path, runtime={"replicas": 1})) == []


def test_a_subnet_must_have_room_and_a_way_out(place, tmp_path):
    networks = place.cloud.part(neighbours.Networks)
    networks.said[place.subnet] = {"cidrBlock": "10.60.0.0/30"}
    networks.said[networks.route_table] = {"routeRules": []}
    found = look(place, tmp_path)
    assert wrong(found) == [
        ("problem", "network", "subnet rehearsed-subnet has 1 addresses, and the job has 2 nodes"),
        ("warning", "network", "subnet rehearsed-subnet leads neither to GitHub nor to the model hub nor to pip"),
    ]
    place.cloud.absent |= {networks.security_list, networks.route_table}
    hidden = [status for status, _ in of(look(place, tmp_path), "network")]
    assert hidden == ["ok", "problem", "unknown", "unknown"]
    (own,) = of(look(place, tmp_path, subnetId=None), "network")
    assert own == ("ok", "2 nodes without a subnet reach each other by the service's own network")


def test_buckets_must_exist_and_be_of_use(place, tmp_path):
    other = f"oci://gone@{namespace(place)}/x"
    (problem,) = [one for one in look(place, tmp_path, runtime={"outputUri": other}) if one.status == "problem"]
    assert problem.message == f"bucket gone of {namespace(place)} does not exist, or you may not see it"
    assert "target.bucket.name='gone'" in problem.statements[0]
    assert problem.where == "spec.runtime.spec.outputUri"


def test_inputs_and_packs_must_be_there(place, tmp_path):
    space, shelf = namespace(place), place.cloud.part(Buckets).make("outputs")
    assert shelf is not None
    storage = place.sdk("object_storage", "ObjectStorageClient")
    storage.put_object(space, "outputs", "data/train.jsonl", b"{}")
    storage.put_object(space, "outputs", "packs/tuned", b"pack")
    runtime = {
        "inputs": {f"oci://outputs@{space}/data/": "data", f"oci://outputs@{space}/none/": "none"},
        "conda": {"type": "published", "uri": f"oci://outputs@{space}/packs/tuned"},
    }
    found = look(place, tmp_path, runtime=runtime)
    assert ("ok", f"what is at oci://outputs@{space}/data is there") in of(found, "storage")
    assert ("problem", f"what is at oci://outputs@{space}/none: nothing") in of(found, "storage")
    assert ("ok", "conda environment packs/tuned in bucket outputs exists") in of(found, "storage")
    runtime["conda"]["uri"] += "-gone"
    (problem,) = [one for one in look(place, tmp_path, runtime=runtime) if "packs/tuned-gone" in one.message]
    assert (problem.status, problem.where) == ("problem", "spec.runtime.spec.conda.uri")


def test_writing_is_tried_only_when_asked_and_leaves_nothing(place, tmp_path):
    before = len(place.stage.record.calls)
    found = look(place, tmp_path, write=True)
    assert ("ok", "you may write to bucket outputs, and remove what you wrote") in of(found, "storage")
    changes = [one.operation for one in place.stage.record.calls[before:] if one.method != "GET"]
    assert changes == ["put_object", "delete_object"]
    listed = place.sdk("object_storage", "ObjectStorageClient").list_objects(
        namespace(place), "outputs", prefix="llama/"
    )
    assert listed.data.objects == []


def test_secrets_that_one_may_not_see_are_unknown(place, tmp_path):
    gone = new_ocid("vaultsecret")
    place.cloud.absent.add(gone)
    found = look(place, tmp_path, runtime={"env": [{"name": "A", "secret": gone}, {"name": "B", "secret": SECRET}]})
    assert of(found, "secrets") == [("unknown", f"you may not see secret {gone}"), ("ok", f"secret {SECRET} exists")]
    (unknown,) = [one for one in found if one.status == "unknown"]
    assert unknown.statements == (
        "allow group <your group> to read secrets in compartment id <compartment of the vault>",
    )


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("iad.ocir.io/space/team/train:1.2", [("ok", "image iad.ocir.io/space/team/train:1.2 is there")]),
        (
            "ocir.us-ashburn-1.oci.oraclecloud.com/space/team/train:9",
            [
                (
                    "warning",
                    "there is no image ocir.us-ashburn-1.oci.oraclecloud.com/space/team/train:9 in the job's compartment",
                )
            ],
        ),
        ("nvcr.io/nvidia/pytorch:25.10", []),
    ],
)
def test_images_of_the_registry_are_looked_for(place, tmp_path, image, found):
    place.cloud.part(neighbours.Images).tags["team/train"] = ("1.1", "1.2")
    assert of(look(place, tmp_path, kind="container", runtime={"image": image}), "image") == found


def test_ocids_of_other_regions_are_found_without_asking(place, tmp_path):
    far = place.project.replace(".iad.", ".eu-frankfurt-1.")
    regions = [one for one in look(place, tmp_path, projectId=far) if one.check == "oci"]
    assert regions[0].status == "problem"
    assert "projectId is of eu-frankfurt-1, subnetId is of us-ashburn-1" in regions[0].message


def test_placeholders_are_not_asked_for(place, tmp_path):
    before = len(place.stage.record.calls)
    blank = {
        "compartmentId": "ocid1.compartment.oc1..xxxxxxxx",
        "projectId": "<project>",
        "logGroupId": None,
        "logId": None,
    }
    mounts = [{"src": "oci://<bucket>@<namespace>/x", "dest": "outputs"}]
    look(place, tmp_path, storageMount=mounts, **blank)
    asked = {one.operation for one in place.stage.record.calls[before:]}
    assert asked == {"get_subnet", "get_security_list", "get_route_table"}


def test_jobs_of_a_pipeline_are_asked_about_once(place, tmp_path):
    step = {"runtime": {"kind": "runtime", "type": "pyTorchDistributed", "spec": {"command": "torchrun train.py"}}}
    steps = [{"name": name, "job": step} for name in ("one", "two")]
    infrastructure = {"kind": "infrastructure", "type": "dataScienceJob", "spec": spec(place)}
    file = tmp_path / "pipeline.json"
    file.write_text(
        json.dumps({"kind": "pipeline", "spec": {"name": "p", "infrastructure": infrastructure, "steps": steps}})
    )
    subjects = document.read(file, environ={}).subjects
    assert len(subjects) == 2
    before = len(place.stage.record.calls)
    found = carried_out(places.checks(subjects, Surroundings(environ=os.environ)))
    assert len(of(found, "project")) == 1
    operations = [one.operation for one in place.stage.record.calls[before:]]
    assert operations.count("get_project") == operations.count("get_subnet") == 1


def test_what_a_job_takes_from_its_notebook_session_is_looked_at(place, tmp_path):
    session = new_ocid("datasciencenotebooksession")
    details = {"subnetId": place.subnet}
    place.cloud.part(neighbours.Sessions).said[session] = {"notebookSessionConfigurationDetails": details}
    here = {
        "NB_SESSION_OCID": session,
        "NB_SESSION_COMPARTMENT_OCID": place.compartment,
        "PROJECT_OCID": place.project,
    }
    nothing = dict.fromkeys(("compartmentId", "projectId", "subnetId"))
    found = look(place, tmp_path, environ=here, **nothing)
    assert wrong(found) == []
    assert of(found, "session") == [("ok", "compartmentId, projectId, subnetId as the notebook session has it")]
    assert of(found, "network")[0] == ("ok", "subnet rehearsed-subnet (10.60.0.0/20) exists")
    place.cloud.absent.add(session)
    (hidden,) = [one for one in look(place, tmp_path, environ=here, **nothing) if one.check == "session"]
    assert hidden.statements == (
        "allow group <your group> to read data-science-notebook-sessions in compartment id <compartment>",
    )


# --- when nobody answers


def test_without_credentials_one_thing_is_said(place, tmp_path):
    found = look(
        place, tmp_path, environ={name: str(tmp_path / "none") for name in ("OCI_CLI_CONFIG_FILE", "OCI_CONFIG_FILE")}
    )
    (problem,) = found
    assert (problem.status, problem.check) == ("problem", "oci")
    assert "no credentials for OCI" in problem.message


def test_where_nobody_answers_all_is_unknown_and_little_is_tried(place, tmp_path):
    found = look(place, tmp_path, environ={"CLOUDTUNE_OCI_ENDPOINT": "http://127.0.0.1:9"})
    rest = [one for one in found if one.check != "oci"]
    assert {one.status for one in rest} == {"unknown"}
    assert "OCI is not reached" in rest[0].message
    assert all(one.message.endswith("not asked: OCI is not reached") for one in rest[1:])


def test_somebody_whom_oci_does_not_know_is_told_once(place, tmp_path):
    from cloudtune.rehearsal.keys import make_key

    config = (place.identity.home / ".oci" / "config").read_text()
    key = tmp_path / "other.pem"
    key.write_bytes(make_key().private_pem)
    key.chmod(0o600)
    file = tmp_path / "config"
    lines = [f"key_file={key}" if line.startswith("key_file") else line for line in config.splitlines()]
    file.write_text("\n".join(lines))
    file.chmod(0o600)
    environ = {name: str(file) for name in ("OCI_CLI_CONFIG_FILE", "OCI_CONFIG_FILE")}
    found = look(place, tmp_path, environ=environ)
    assert [one.status for one in found].count("problem") == 1
    assert all("you are not signed in" in one.message for one in found if one.status == "unknown")


@pytest.mark.parametrize(("skew", "status"), [(30, None), (-90, "warning"), (400, "problem"), (None, None)])
def test_clocks_that_differ_are_a_reason_to_be_refused(skew, status):
    found = list(questions.clocks(skew, "OCI"))
    assert [one.status for one in found] == ([status] if status else [])


def test_the_client_notices_the_difference_by_the_way(place):
    from cloudtune.clients.oci import OciClient
    from cloudtune.plan import Call

    client = OciClient(hasty=True)
    assert client.skew_s is None
    client.read(Call(service="oci.data_science", operation="get_project", parameters={"projectId": place.project}))
    assert abs(client.skew_s) < 60


def test_places_without_checks_and_extras_that_are_missing_say_so(monkeypatch, place, tmp_path):
    monkeypatch.setitem(places.PLACES, "dataScienceJob", "tests.diagnosis.missing:checks")
    (missing,) = look(place, tmp_path)
    assert (missing.status, missing.hint) == ("problem", 'pip install "cloudtune[oci]"')
    monkeypatch.delitem(places.PLACES, "dataScienceJob")
    (nothing,) = look(place, tmp_path)
    assert (nothing.status, nothing.message) == ("unknown", "nothing looks at dataScienceJob yet")
