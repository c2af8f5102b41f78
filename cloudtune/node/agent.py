"""The agent: carries out one order on one node, from the code's arrival to the report.

The sequence: place, preparation (secrets, code, packages, inputs, a test of the outputs' place, accelerators), roll
call, command, outputs, report. Whatever goes wrong ends in a report and an exit code: the command's own, 128+N for
signal N, 124 for the time limit, 125 for a failure of the node itself.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudtune.node import processes, ranks
from cloudtune.node.attendance import Attendance
from cloudtune.node.command import Command, why_stopped
from cloudtune.node.errors import NodeError, Stopped
from cloudtune.node.failure import first_failure, how_it_failed, rank_that_failed
from cloudtune.node.farewell import farewell
from cloudtune.node.launchers import OWN_RANKS, command_line, environment, precompile_line
from cloudtune.node.log import Log, Redaction, write_error
from cloudtune.node.network import interface_of
from cloudtune.node.order import Order, read_order
from cloudtune.node.preparation import Preparation
from cloudtune.node.ranks import Place
from cloudtune.node.report import AGENT_FAILED, TIME_LIMIT, ending, new_report, release, reserve, write_json
from cloudtune.node.rollcall import Roll, call_roll, report_absence
from cloudtune.node.streams import Streams

#: Seconds between two looks at a place that has not listed all nodes yet.
_PLACE_S = 1.0
#: Where a node may be made again alone.
_ALONE_AGAIN = ("kubernetes",)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
#: Why a command was stopped whose node must start again with the others.
_STARTS_AGAIN = "a node that came again"
#: Where a place shows why a node failed: a file, and how many characters of it.
_NOTICES = {"sagemaker": ("/opt/ml/output/failure", 1024), "kubernetes": ("/dev/termination-log", 4096)}


class Agent:
    """One node at work."""

    def __init__(self, order: Order, *, base: Path, directory: Path, log: Log, report: dict[str, Any]) -> None:
        self.order = order
        self.directory = directory
        self.log = log
        self.report = report
        self.surroundings = dict(os.environ)
        self.preparation = Preparation(
            order, base=base, directory=directory, log=log, surroundings=self.surroundings, facts=report
        )
        self.place: Place | None = None
        self.command: Command | None = None
        self.streams: Streams | None = None
        self.finishing = False
        self.orphaned = False
        self.roll: Roll | None = None
        self.again: str | None = None  # why all nodes must start again
        self.tidy = False  # whether the command ended with all its processes

    def work(self) -> int:
        """Do everything up to the end of the command; return its ``Popen.returncode``."""
        order = self.order
        place = self._find_place()
        self.place = place
        self.report["node"] = place.node_rank
        if self.surroundings.get("CLOUDTUNE_PLACE") in ranks.NUMBERED:
            self.log.number(place.node_rank, place.nodes)
        main = f"{place.main_addr}:{place.main_port}"
        self.log.say(f"node {place.node_rank} of {place.nodes} ({place.name}), main address {main}")
        processes.become_subreaper()
        self.preparation.make_ready(place)
        if order.nodes > 1:
            port = self._roll_port(place)
            roll = call_roll(place, order.run_id, port=port, timeout_s=order.rendezvous_timeout_s, say=self.log.say)
            self.report["clockOffset"], self.roll = roll.clock_offset_s, roll
        return self._run_command(place)

    def _find_place(self) -> Place:
        deadline = time.monotonic() + self.order.rendezvous_timeout_s
        while True:
            try:
                place = ranks.find_place(self.surroundings, _read_text, nodes=self.order.nodes)
            except ranks.NotReady as error:
                if time.monotonic() >= deadline:
                    raise NodeError(f"{error} (waited {self.order.rendezvous_timeout_s:g} s)") from error
            else:
                if place.nodes > 1 and place.interface is None and place.name in ("local", "oci"):
                    place = place._replace(interface=interface_of(place.local_addr or place.main_addr))
                return place
            time.sleep(_PLACE_S)

    def _roll_port(self, place: Place) -> int:
        return int(self.surroundings.get("CLOUDTUNE_ROLL_PORT") or place.main_port + 1)

    def _run_command(self, place: Place) -> int:
        order, ready = self.order, self.preparation
        variables = environment(
            order,
            place,
            ready.paths,
            surroundings=self.surroundings,
            secrets=ready.secrets,
            on_processors=ready.on_processors,
        )
        self.streams = Streams(ready.pipes, self.log, slots=order.processes_per_node)
        _wake_by_signals(self.streams)
        command = Command(
            self.streams,
            run_id=order.run_id,
            node_rank=place.node_rank,
            grace_s=order.grace_s,
            spared=ready.helpers,
        )
        self.command = command
        if ready.outputs is not None:
            ready.outputs.start()
        alone = order.launcher not in OWN_RANKS and order.processes_per_node == 1
        lines = (
            self._precompile_line(),
            None
            if order.neuron.get("precompileOnly")
            else command_line(order, python=ready.python, archive=ready.archive),
        )
        code = 0
        attendance = self._attend(place, command)
        for line in lines:
            if line is not None and code == 0 and command.stopped is None:
                self.log.say(f"starts: {line[-1] if line[:2] == ['/bin/sh', '-c'] else shlex.join(line)}")
                code = command.run(
                    line, variables=variables, folder=ready.working, rank=place.node_rank if alone else None
                )
        if attendance is not None:
            attendance.close()
        self.report.update(stopped=command.stopped, stoppedAt=command.stopped_at)
        self.tidy = True
        return code

    def _attend(self, place: Place, command: Command) -> Attendance | None:
        """Watch, where a node may be made again alone, whether all must start again: then the command ends."""
        roll = self.roll
        if roll is None or place.name not in _ALONE_AGAIN:
            return None

        def again(reason: str) -> None:
            self.again = reason
            command.stop(_STARTS_AGAIN)
            os.kill(os.getpid(), signal.SIGCHLD)  # the loop that reads the streams wakes, and looks

        return Attendance(place, self.order.run_id, roll, port=self._roll_port(place), again=again)

    def _precompile_line(self) -> list[str] | None:
        """Return the argv of the pass before training; a rehearsal has no compiler and goes without."""
        line = precompile_line(self.order, python=self.preparation.python, archive=self.preparation.archive)
        if line is not None and self.surroundings.get("CLOUDTUNE_REHEARSED") and shutil.which(line[0]) is None:
            self.log.say(f"rehearsed: substituted: compile -> nothing: {line[0]} is not on this machine")
            return None
        return line

    def on_signal(self, number: int, _frame: object) -> None:
        """Pass a signal on to the command, or stop what comes before it."""
        if self.command is not None:
            self.command.stop(why_stopped(number))
        elif not self.finishing:
            self.finishing = True
            raise Stopped(number)

    def keep_outputs(self) -> str | None:
        """Bring the outputs home; return what went wrong, or None."""
        outputs = self.preparation.outputs
        if outputs is None:
            return None
        started = time.monotonic()
        problem = outputs.finish()
        if problem is None:
            self.log.say(f"outputs are kept at {outputs.store.uri} ({time.monotonic() - started:.1f} s)")
        return problem

    def describe(self, returncode: int) -> None:
        """Put into the report how the command and its ranks ended."""
        report, streams = self.report, self.streams
        assert streams is not None
        code, name = ending(returncode)
        how = f"the command was ended by {name}" if name else f"the command ended with exit code {code}"
        report.update(exitCode=code, signal=name, reason=how)
        own = streams.command
        records = streams.last_attempts() or ([own] if own is not None and own.rank is not None else [])
        for record in records:
            if code == 0:
                record.end(record.ended_at or time.time(), 0)
        report["ranks"] = [record.to_dict() for record in records]
        if report["stopped"] == "time limit":
            limit_s = self.order.maximum_runtime_s or 0
            report.update(exitCode=TIME_LIMIT, signal=None, reason=f"the time limit of {limit_s:g} s was reached")
            report["failure"] = self._own_failure(TIME_LIMIT, None)
        elif report["stopped"] == _STARTS_AGAIN:
            report.update(exitCode=AGENT_FAILED, signal=None, reason=self.again)
            report["failure"] = {**self._own_failure(AGENT_FAILED, None), "victim": True}
        elif report["stopped"]:
            # a launcher takes its time to end the other ranks; the place may stop this node in the meantime
            facts = [rank_that_failed(report), f"stopped by {report['stopped']}", how]
            report["reason"] = "; ".join(fact for fact in facts if fact)
        elif code:
            first = first_failure([report])
            if first is None or first["rank"] is None:
                first = self._own_failure(code, name, own.to_dict() if own else None)
            else:
                report["reason"] = f"{how_it_failed(first)}; {how}"
            report["failure"] = first

    def fail(self, reason: str, *, code: int = AGENT_FAILED, victim: bool = False) -> None:
        """Put a failure of the node itself into the report, unless it has failed already."""
        self.log.say(f"error: {reason}")
        if self.report["exitCode"]:
            return
        self.report.update(exitCode=code, signal=None, reason=reason)
        self.report["failure"] = {**self._own_failure(code, None), "victim": victim}

    def _own_failure(self, code: int, name: str | None, record: dict[str, Any] | None = None) -> dict[str, Any]:
        known = record or {"lines": list(self.log.last_words), "traceback": None}
        return {
            "replica": self.report["node"],
            "rank": known.get("rank"),
            "exitCode": code,
            "signal": name,
            "time": known.get("endedAt") or time.time(),
            "lines": known["lines"],
            "traceback": known["traceback"],
        }

    def tell_others(self, reason: str) -> None:
        """Tell the other nodes that this one cannot start."""
        place = self.place
        if place is not None and place.nodes > 1 and self.command is None:
            report_absence(place, self.order.run_id, reason, port=self._roll_port(place))

    def write_report(self) -> None:
        """Write the report, without secrets, and tell the place why the node failed where it shows that."""
        self.report["endedAt"] = time.time()
        write_json(self.directory / "report.json", self.log.redaction.data(self.report))
        if self.place is not None and self.report["exitCode"] and self.place.name in _NOTICES:
            path, most = _NOTICES[self.place.name]
            try:
                Path(path).write_text(self.log.redaction(str(self.report["reason"]))[:most], encoding="utf-8")
            except OSError:
                pass  # not every image has the folder; the report is what counts

    def close(self) -> None:
        """Keep log and report beside the outputs, and remove what only the agent needed."""
        if self.streams is not None:
            self.streams.close()
        outputs = self.preparation.outputs
        if outputs is not None:
            node = self.report["node"]
            problem = outputs.keep_log()
            problem = problem or outputs.keep_beside(self.directory / "report.json", f"logs/node-{node}.json")
            if problem:
                self.fail(problem)
                self.write_report()
        self.preparation.close()
        for folder in (self.preparation.tools, self.directory / "venv"):
            shutil.rmtree(folder, ignore_errors=True)


def run(order_path: Path, directory: Path) -> int:
    """Carry out the order in a file; return the node's exit code."""
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    report = new_report(_number(os.environ.get("CLOUDTUNE_NODE_RANK")))
    log = Log(directory / "log", Redaction())
    log.redaction.add_variables(os.environ)
    node = ranks.numbered_node(os.environ, _read_text)
    reserve(directory)
    try:
        order = read_order(order_path)
    except NodeError as error:
        if node is not None:
            report["node"] = node
            log.number(node, node + 1)
        release(directory)
        log.say(f"error: {error}")
        report.update(exitCode=AGENT_FAILED, reason=str(error), endedAt=time.time())
        write_json(directory / "report.json", log.redaction.data(report))
        _say_farewell(log, report, nodes=(node or 0) + 1)
        return AGENT_FAILED
    if node is not None:
        report["node"] = node
        log.number(node, order.nodes)
    agent = Agent(order, base=order_path.absolute().parent, directory=directory, log=log, report=report)
    for number in _SIGNALS:
        signal.signal(number, agent.on_signal)
    if order.maximum_runtime_s:
        signal.setitimer(signal.ITIMER_REAL, order.maximum_runtime_s)
    _mind_supervisor(agent)
    return _carry_out(agent)


def _carry_out(agent: Agent) -> int:
    report = agent.report
    try:
        _work(agent)
        _give_way(agent)
        problem = agent.keep_outputs()
        if problem:
            agent.fail(problem)
    except Exception as error:  # noqa: BLE001 - a fault of the agent itself must still end in a report
        agent.finishing = True
        agent.log.say(traceback.format_exc())
        agent.fail(f"the agent failed: {type(error).__name__}: {error}")
    if agent.place is not None and not agent.tidy:
        processes.end_all(agent.order.run_id, grace_s=0, node_rank=agent.place.node_rank)
    release(agent.directory)
    if agent.log.failure is not None:
        agent.log.say(f"warning: lines of this log may be missing: {agent.log.failure}")
    agent.log.say(f"ends with exit code {report['exitCode']}: {report['reason']}")
    _give_way(agent)
    try:
        agent.write_report()
        agent.close()
    except OSError as error:
        report["exitCode"] = report["exitCode"] or AGENT_FAILED
        write_error(f"cannot write the report: {error}")
    _say_farewell(agent.log, report, nodes=agent.order.nodes)
    return int(report["exitCode"])


def _say_farewell(log: Log, report: Mapping[str, Any], *, nodes: int) -> None:
    """Write the last line, where a log service carries the lines: nothing may follow it."""
    if log.numbered:
        log.write(None, "agent", [farewell(log.redaction.data(report), nodes=nodes, lines=log.lines + 1)])


def _work(agent: Agent) -> None:
    """Do the work, and put into the report how it ended."""
    try:
        agent.describe(agent.work())
    except NodeError as error:
        agent.finishing = True
        agent.fail(str(error), victim=error.victim)
        agent.tell_others(str(error))
    except Stopped as stop:
        if stop.signal_number == signal.SIGALRM:
            limit_s = agent.order.maximum_runtime_s or 0
            agent.fail(f"the time limit of {limit_s:g} s was reached before the command started", code=TIME_LIMIT)
            return
        why = why_stopped(stop.signal_number)
        agent.report.update(exitCode=128 + stop.signal_number, signal=why, stopped=why, stoppedAt=time.time())
        agent.report["reason"] = f"stopped by {why} before the command started"
    finally:
        agent.finishing = True


def _mind_supervisor(agent: Agent) -> None:
    """End everything at once when the supervisor's end of its pipe closes: it has died."""
    fd = _number(agent.surroundings.pop("CLOUDTUNE_SUPERVISOR_FD", None))
    os.environ.pop("CLOUDTUNE_SUPERVISOR_FD", None)
    if fd is None:
        return
    try:
        os.set_inheritable(fd, False)
    except OSError:
        return

    def wait() -> None:
        try:
            while os.read(fd, 1):
                pass
        except OSError:
            pass
        agent.orphaned = True
        rank = _number(agent.surroundings.get("CLOUDTUNE_NODE_RANK"))
        processes.end_all(agent.order.run_id, grace_s=0, node_rank=rank)
        release(agent.directory)
        agent.report.update(
            exitCode=128 + signal.SIGKILL, signal="SIGKILL", stopped="supervisor", stoppedAt=time.time()
        )
        agent.report["reason"] = "the supervisor of the run died, so everything was ended"
        try:
            agent.log.say(agent.report["reason"])
            agent.write_report()
        finally:
            os._exit(128 + signal.SIGKILL)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()


def _give_way(agent: Agent) -> None:
    """Leave the end to the thread that minds the supervisor, if it has begun with it."""
    while agent.orphaned:
        time.sleep(1)


def _wake_by_signals(streams: Streams) -> None:
    """Let every signal, the end of a child too, wake the loop that reads the streams."""
    read, write = os.pipe()
    for fd in (read, write):
        os.set_blocking(fd, False)

    def empty() -> None:
        try:
            while os.read(read, 4096):
                pass
        except BlockingIOError:
            pass

    streams.watch(read, empty)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler of its own it would wake nobody
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)


def _read_text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
