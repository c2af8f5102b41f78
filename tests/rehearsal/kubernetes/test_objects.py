"""The objects of a rehearsed cluster: versions, generations, names, finalizers, grace, owners."""

import pytest

from cloudtune.rehearsal.kubernetes.kinds import Kinds
from cloudtune.rehearsal.kubernetes.objects import FOREGROUND, Objects
from cloudtune.rehearsal.messages import Refused
from cloudtune.rehearsal.state import Gone, Store


@pytest.fixture
def objects():
    made = Objects(Store(), Kinds())
    made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    return made


def thing(kind, name, api="v1", **more):
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **more}


def pod(name="p", **meta):
    made = thing("Pod", name, spec={"nodeName": "n", "containers": []})
    made["metadata"].update(meta)
    return made


def test_an_object_is_stamped_and_kept_by_its_name(objects):
    made = objects.create(pod(), status={"phase": "Pending"})
    meta = made["metadata"]
    assert (meta["namespace"], meta["generation"], made["status"]) == ("default", 1, {"phase": "Pending"})
    assert meta["uid"]
    assert meta["creationTimestamp"].endswith("Z")
    assert int(meta["resourceVersion"]) == objects.version
    with pytest.raises(Refused, match='pods "p" already exists'):
        objects.create(pod())
    assert objects.get("Pod", "default", "p") == made
    assert objects.get("Pod", "elsewhere", "p") is None


def test_names_are_generated_and_namespaces_must_be_there(objects):
    names = {objects.create(pod(None, generateName="x-"))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("x-") and len(name) == 7 for name in names)
    with pytest.raises(Refused, match='namespaces "nowhere" not found'):
        objects.create(pod(namespace="nowhere"))
    with pytest.raises(Refused, match="no matches for kind"):
        objects.create(thing("Job", "j", api="batch/v2"))


def test_a_dry_run_keeps_nothing(objects):
    assert objects.create(pod(), dry=True)["metadata"]["uid"]
    assert objects.list("Pod") == []


def test_status_and_specification_are_changed_apart(objects):
    objects.create(pod())

    def both(it):
        it["spec"]["nodeName"], it["status"] = "m", {"phase": "Running"}
        it["metadata"]["uid"] = "mine"

    first = objects.update("Pod", "default", "p", both)
    assert (first["spec"]["nodeName"], first.get("status"), first["metadata"]["generation"]) == ("m", None, 2)
    second = objects.update_status("Pod", "default", "p", both)
    assert (second["status"], second["metadata"]["generation"]) == ({"phase": "Running"}, 2)
    assert second["metadata"]["uid"] != "mine"
    version = objects.version
    assert objects.update("Pod", "default", "p", lambda it: None) == second
    assert objects.update("Pod", "default", "p", lambda it: False) is None
    assert objects.update("Pod", "default", "absent", both) is None
    assert objects.version == version


def test_changes_are_told_in_order_with_what_was_before(objects):
    since = objects.version
    objects.create(pod())
    objects.create(thing("ConfigMap", "c"))
    objects.update_status("Pod", "default", "p", lambda it: it.update(status={"phase": "Running"}))
    objects.remove("Pod", "default", "p")
    found, until = objects.changes(since, kinds={"Pod"})
    assert [change.deed for change in found] == ["added", "changed", "removed"]
    assert found[1].before["metadata"]["resourceVersion"] == found[0].object["metadata"]["resourceVersion"]
    assert until == objects.version == found[-1].version
    assert objects.changes(until) == ((), until)
    objects.forget_changes()
    with pytest.raises(Gone):
        objects.changes(since)


def test_a_pod_on_a_node_is_only_marked(objects):
    objects.create(pod())
    marked = objects.delete("Pod", "default", "p")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    sooner = objects.delete("Pod", "default", "p", grace_s=2)
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 2
    objects.update_status("Pod", "default", "p", lambda it: it.update(status={"phase": "Failed"}))
    assert objects.get("Pod", "default", "p") is not None
    objects.delete("Pod", "default", "p", grace_s=0)
    assert objects.get("Pod", "default", "p") is None
    assert objects.delete("Pod", "default", "p") is None


def test_who_is_removed_by_its_uid_is_no_other_of_its_name(objects):
    before = objects.create(pod())["metadata"]["uid"]
    objects.delete("Pod", "default", "p", grace_s=0)
    after = objects.create(pod())["metadata"]["uid"]
    assert objects.remove("Pod", "default", "p", uid=before) is None
    assert objects.get("Pod", "default", "p")["metadata"]["uid"] == after
    assert objects.remove("Pod", "default", "p", uid=after)["metadata"]["uid"] == after
    assert objects.get("Pod", "default", "p") is None


def test_owners_go_as_they_are_told(objects):
    owner = objects.create(thing("Job", "j", api="batch/v1", spec={}))
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": owner["metadata"]["uid"]}
    objects.create(pod(ownerReferences=[reference]))
    assert [one["kind"] for one in objects.dependents(owner["metadata"]["uid"])] == ["Pod"]
    waiting = objects.delete("Job", "default", "j", propagation="Foreground")
    assert waiting["metadata"]["finalizers"] == [FOREGROUND]
    objects.update("Job", "default", "j", lambda it: it["metadata"].update(finalizers=[]))
    assert objects.get("Job", "default", "j") is None
    again = objects.create(thing("Job", "j", api="batch/v1", spec={}))
    objects.update(
        "Pod", "default", "p", lambda it: it["metadata"]["ownerReferences"][0].update(uid=again["metadata"]["uid"])
    )
    objects.delete("Job", "default", "j")
    assert objects.get("Pod", "default", "p")["metadata"]["ownerReferences"] == []


def test_a_namespace_takes_everything_along(objects):
    objects.create(thing("Namespace", "team"))
    objects.create(pod(namespace="team"))
    objects.create(thing("ConfigMap", "c") | {"metadata": {"name": "c", "namespace": "team"}})
    assert objects.delete("Namespace", None, "team")["status"]["phase"] == "Terminating"
    with pytest.raises(Refused, match="because it is being terminated"):
        objects.create(pod("q", namespace="team"))
    objects.remove("Pod", "team", "p")
    assert objects.get("Namespace", None, "team") is None


def test_events_are_counted(objects):
    about = objects.create(pod())
    for _ in range(3):
        objects.tell(about, "FailedScheduling", "0/1 nodes are available", warning=True, component="scheduler")
    (event,) = objects.list("Event")
    assert (event["count"], event["type"], event["involvedObject"]["name"]) == (3, "Warning", "p")
