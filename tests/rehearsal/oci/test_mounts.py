"""What nodes do with buckets: mounted as folders, opened by fsspec with the rights of the run, written by the agent."""

from __future__ import annotations

from cloudtune.store import Entry
from tests.rehearsal.oci.science import Science

NAME = ("ns", "data")


def test_a_mounted_bucket_shows_its_objects_and_takes_files(science: Science, namespaces: None) -> None:
    from cloudtune.rehearsal.oci.buckets import Buckets

    client = science.place.sdk("object_storage", "ObjectStorageClient")
    science.place.cloud.part(Buckets).make("data", namespace="ns")
    for name in ("in/one", "in/deep/two", "other/three", "in//odd"):
        client.put_object(*NAME, name, name.encode())
    mount = {"storageType": "OBJECT_STORAGE", "namespace": "ns", "bucket": "data", "prefix": "in"}
    details = science.details()
    details["jobStorageMountConfigurationDetailsList"] = [{**mount, "destinationDirectoryName": "in"}]
    script = "cd /mnt/in; cat one deep/two; rm one; echo new > deep/two; mkdir out; echo made > out/made"
    run = science.ended(science.start(science.job(details, script.encode(), "a.sh")))
    assert (run.lifecycle_state, science.said(run.id)) == ("SUCCEEDED", ["in/onein/deep/two"])
    found = {one.name: one.size for one in client.list_objects(*NAME, fields="size").data.objects}
    assert found == {"in//odd": 7, "in/deep/two": 4, "in/out/made": 5, "other/three": 11}
    assert client.get_object(*NAME, "in/out/made").data.content == b"made\n"
    client.put_object(*NAME, "in/late", b"late")
    client.delete_object(*NAME, "in/out/made")
    script = "cd /mnt/in; cat late; ls out"
    run = science.ended(science.start(science.job(details, script.encode(), "a.sh")))
    assert (run.lifecycle_state, science.said(run.id)) == ("SUCCEEDED", ["late"])


def test_a_bucket_that_is_not_there_cannot_be_mounted(science: Science) -> None:
    science.place.cloud.absent.add("ns/data")
    details = science.details()
    mount = {"storageType": "OBJECT_STORAGE", "namespace": "ns", "bucket": "data", "destinationDirectoryName": "in"}
    details["jobStorageMountConfigurationDetailsList"] = [mount]
    state, reason = science.outcome(details, "print()")
    assert (state, "could not be mounted" in reason) == ("FAILED", True)


def test_a_job_opens_a_bucket_with_the_rights_of_its_run(science: Science, namespaces: None) -> None:
    from cloudtune.rehearsal.oci.buckets import Buckets

    shelf = science.place.cloud.part(Buckets).make("data", namespace="ns")
    script = (
        "import fsspec\n"
        "with fsspec.open('oci://data@ns/from/job', 'w') as file: file.write('hello')\n"
        "print(fsspec.open('oci://data@ns/from/job', 'r').open().read())\n"
    )
    run = science.ended(science.start(science.job(science.details(), script.encode())))
    assert (run.lifecycle_state, science.said(run.id)) == ("SUCCEEDED", ["hello"])
    assert [one.name for one in shelf.find().objects] == ["from/job"]


def test_what_the_agent_leaves_lands_in_the_bucket(science: Science, namespaces: None) -> None:
    from cloudtune.backends.oci import OciBackend
    from cloudtune.clients.oci import OciClient
    from cloudtune.rehearsal.oci.buckets import Buckets
    from cloudtune.spec.job import JobSpec
    from cloudtune.spec.oci import DataScienceJob
    from cloudtune.spec.runtimes import PyTorchDistributedRuntime
    from cloudtune.submit import submit

    place = science.place
    shelf = place.cloud.part(Buckets).make("data", namespace="ns")
    command = "mkdir -p out/sub && echo $CLOUDTUNE_NODE_RANK > out/sub/$CLOUDTUNE_NODE_RANK"
    job = JobSpec(
        name="outputs",
        infrastructure=DataScienceJob(
            compartment_id=place.compartment,
            project_id=place.project,
            shape_name="VM.Standard2.1",
            block_storage_size=50,
            log_group_id=place.log_group,
        ),
        runtime=PyTorchDistributedRuntime(
            command=command, replicas=2, processes_per_node=1, output_dir="out", output_uri="oci://data@ns/runs/x"
        ),
    )
    replies = submit(OciBackend().plan(job, "0123456789abcdef"), OciClient(), Memory())
    run = science.ended(replies["run"]["id"])
    assert run.lifecycle_state == "SUCCEEDED", science.said(run.id)
    names = sorted(one.name for one in shelf.find().objects)
    assert [name for name in names if "/sub/" in name] == ["runs/x/node-1/sub/1", "runs/x/sub/0"]


class Memory:
    """A journal that forgets."""

    def read(self) -> dict[str, Entry]:
        return {}

    def write(self, step: str, phase: str, reply: object = None) -> None:
        pass
