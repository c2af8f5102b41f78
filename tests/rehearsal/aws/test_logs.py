"""CloudWatch Logs of the stand-in: late, in order, each event once whatever the pages are like."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from cloudtune.rehearsal.aws.cloud import Delivery
from cloudtune.rehearsal.aws.logs import Logs
from tests.aws_place import AwsPlace, aws_place, until

botocore = pytest.importorskip("botocore.exceptions")
GROUP = "/aws/sagemaker/TrainingJobs"


@pytest.fixture
def place(tmp_path):
    with aws_place(tmp_path, delivery=Delivery(least_s=0.0, most_s=0.0), speed=1.0) as found:
        yield found


def write(place: AwsPlace, stream: str, *texts: str, at: float = 0.0) -> None:
    rows = [(at or time.time(), text) for text in texts]
    place.cloud.part(Logs).write("us-west-2", GROUP, stream, rows)


def pages(client: Any, stream: str, **more: Any) -> Iterator[list[str]]:
    """Yield the pages of a stream from its head to its end."""
    token: dict[str, str] = {}
    while True:
        page = client.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True, **token, **more)
        if page["nextForwardToken"] == token.get("nextToken"):
            assert page["events"] == []
            return
        yield [event["message"] for event in page["events"]]
        token = {"nextToken": page["nextForwardToken"]}


def test_pages_tell_every_line_once_and_one_that_is_empty_is_no_end(place: AwsPlace) -> None:
    client = place.sdk("logs")
    texts = [f"line {number}" for number in range(100)]
    write(place, "j/algo-1-1", *texts)
    found = list(pages(client, "j/algo-1-1", limit=10))
    assert [line for page in found for line in page] == texts
    assert [] in found[:-1]
    page = client.get_log_events(logGroupName=GROUP, logStreamName="j/algo-1-1", limit=2)
    assert [event["message"] for event in page["events"]] == texts[-2:]
    ask = {"logGroupName": GROUP, "logStreamName": "j/algo-1-1", "limit": 2}
    back = client.get_log_events(**ask, nextToken=page["nextBackwardToken"])
    while not back["events"]:
        back = client.get_log_events(**ask, nextToken=back["nextBackwardToken"])
    assert [event["message"] for event in back["events"]] == texts[-4:-2]


def test_a_page_goes_on_where_it_ended_when_more_was_written(place: AwsPlace) -> None:
    client = place.sdk("logs")
    write(place, "j/algo-1-1", "a", "", "b")
    ask = {"logGroupName": GROUP, "logStreamName": "j/algo-1-1", "startFromHead": True}
    first = client.get_log_events(**ask)
    assert [event["message"] for event in first["events"]] == ["a", "b"]
    again = client.get_log_events(**ask, nextToken=first["nextForwardToken"])
    assert (again["events"], again["nextForwardToken"]) == ([], first["nextForwardToken"])
    write(place, "j/algo-1-1", "c")
    after = client.get_log_events(**ask, nextToken=first["nextForwardToken"])
    assert [event["message"] for event in after["events"]] == ["c"]
    with pytest.raises(client.exceptions.InvalidParameterException):
        client.get_log_events(**ask, nextToken="f/1")


def test_groups_and_streams_are_not_there_before_their_first_line(tmp_path: Any) -> None:
    with aws_place(tmp_path, delivery=Delivery(least_s=100.0, most_s=100.0), speed=1.0) as place:
        client = place.sdk("logs")
        ask = {"logGroupName": GROUP, "logStreamNamePrefix": "j/"}
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.describe_log_streams(**ask)
        write(place, "j/algo-1-1", "a")
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.describe_log_streams(**ask)
        place.stage.clock.push(101)
        (stream,) = client.describe_log_streams(**ask)["logStreams"]
        assert stream["logStreamName"] == "j/algo-1-1"
        write(place, "j/algo-2-1", "b")
        assert len(client.describe_log_streams(**ask)["logStreams"]) == 1
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.get_log_events(logGroupName=GROUP, logStreamName="j/algo-2-1")


def test_many_streams_are_filtered_in_the_order_of_time(place: AwsPlace) -> None:
    client, now = place.sdk("logs"), time.time()
    for number in range(6):
        write(place, f"j/algo-{number % 2 + 1}-1", f"at {number}", at=now + number)
    write(place, "other/algo-1-1", "not this")
    found = [
        event["message"]
        for page in client.get_paginator("filter_log_events").paginate(
            logGroupName=GROUP, logStreamNamePrefix="j/", PaginationConfig={"PageSize": 4}
        )
        for event in page["events"]
    ]
    assert found == [f"at {number}" for number in range(6)]
    late = client.filter_log_events(logGroupName=GROUP, logStreamNamePrefix="j/", startTime=int((now + 4) * 1000))
    assert [event["message"] for event in late["events"]] == ["at 4", "at 5"]
    assert client.filter_log_events(logGroupName=GROUP, filterPattern="not this")["events"][0]["message"] == "not this"


def test_what_others_write_is_kept_in_groups_of_their_own(place: AwsPlace) -> None:
    client = place.sdk("logs")
    client.create_log_group(logGroupName="mine")
    client.create_log_stream(logGroupName="mine", logStreamName="s")
    events = [{"timestamp": 1, "message": "one"}, {"timestamp": 2, "message": "two"}]
    client.put_log_events(logGroupName="mine", logStreamName="s", logEvents=events)
    with pytest.raises(client.exceptions.InvalidParameterException):
        client.put_log_events(logGroupName="mine", logStreamName="s", logEvents=events[::-1])
    page = until(lambda: client.get_log_events(logGroupName="mine", logStreamName="s", startFromHead=True)["events"])
    assert [event["message"] for event in page] == ["one", "two"]
    with pytest.raises(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_group(logGroupName="mine")
    client.delete_log_stream(logGroupName="mine", logStreamName="s")
    client.delete_log_group(logGroupName="mine")
    assert client.describe_log_groups(logGroupNamePrefix="mine")["logGroups"] == []
