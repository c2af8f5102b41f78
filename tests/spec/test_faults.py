"""Everything that is wrong, said at once: where, what, and the nearest right word."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from cloudtune.errors import Fault, SpecError
from cloudtune.spec.document import checked, load
from cloudtune.spec.job import JobSpec
from cloudtune.spec.runtimes import PythonRuntime


def faults_of(text: str, **options: Any) -> list[Fault]:
    """Return the faults of a text; [] when there are none."""
    try:
        load(textwrap.dedent(text), **options)
    except SpecError as error:
        return list(error.faults)
    return []


def job(runtime: str = "", infrastructure: str = "", kind: str = "python", place: str = "local") -> str:
    """Return a job with keys in its runtime and its infrastructure, one a line."""
    lines = ["kind: job", "spec:"]
    lines += ["  infrastructure:", f"    type: {place}", "    spec:"]
    lines += [f"      {line}" for line in textwrap.dedent(infrastructure).strip().splitlines()]
    lines += ["  runtime:", f"    type: {kind}", "    spec:"]
    lines += [f"      {line}" for line in textwrap.dedent(runtime).strip().splitlines()]
    return "\n".join(lines) + "\n"


def test_what_is_no_mapping_is_told_its_keys() -> None:
    (fault,) = faults_of(job("dependencies: [tabulate]\nscriptPathURI: a.py"))
    assert (fault.path, fault.message) == ("spec.runtime.spec.dependencies", "a mapping is needed here; this is a list")
    assert (fault.hint or "").endswith("before the command starts. keys: pipPackages, pipRequirements")


def test_all_faults_come_at_once_each_with_its_place() -> None:
    text = """\
        kind: job
        apiVersion: v1
        spec:
          nam: x
          infrastructure:
            kind: infra
            type: sagemaker
            spec:
              instancetype: ml.g5
              useSpot: 'false'
              maxRuntimeInSeconds: 3.7
              volumeSizeInGB: true
              maxWaitTimeInSeconds: 0
              framework: {name: 5, versoin: "2.1"}
              inputs:
              - {channel: a, uri: s3://x, mode: fastfile}
          runtime:
            type: pyTorchDistribute
            replicas: 3
            spec:
              command: torchrun x
              args: [1, on, [x]]
              git: {branch: 5}
    """
    found = [(fault.line, fault.column, fault.path, fault.hint) for fault in faults_of(text)]
    place, run = "spec.infrastructure.spec", "spec.runtime.spec"
    assert found == [
        (4, 3, "spec.nam", "did you mean 'name'?"),
        (6, 11, "spec.infrastructure.kind", "`kind: infrastructure`"),
        (7, 11, "spec.infrastructure.type", "did you mean 'sageMakerTrainingJob'?"),
        (9, 7, f"{place}.instancetype", "did you mean 'instanceType'?"),
        (10, 16, f"{place}.useSpot", "write it without quotes"),
        (11, 28, f"{place}.maxRuntimeInSeconds", None),
        (12, 23, f"{place}.volumeSizeInGB", None),
        (13, 29, f"{place}.maxWaitTimeInSeconds", "1 or more"),
        (14, 25, f"{place}.framework.name", 'quote it: "5"'),
        (14, 28, f"{place}.framework.versoin", "did you mean 'version'?"),
        (16, 41, f"{place}.inputs[0].mode", "did you mean 'FastFile'?"),
        (18, 11, "spec.runtime.type", "did you mean 'pyTorchDistributed'?"),
        (19, 5, "spec.runtime.replicas", "below `spec:`"),
        (22, 14, f"{run}.args[0]", 'quote it: "1"'),
        (22, 21, f"{run}.args[2]", None),
        (23, 12, f"{run}.git.url", None),
        (23, 21, f"{run}.git.branch", 'quote it: "5"'),
    ]


def test_a_fault_reads_well(tmp_path: Any) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(job("scriptPathURI: a.py\nreplica: 2"))
    with pytest.raises(SpecError) as caught:
        load(file)
    assert str(caught.value) == (
        f"{file}:10:7: spec.runtime.spec.replica: unknown key 'replica' (did you mean 'replicas'?)"
    )


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("sagemaker", "sageMakerTrainingJob"),
        ("SageMakerTrainingJob", "sageMakerTrainingJob"),
        ("dataScienceJobs", "dataScienceJob"),
        ("k8s", "eksJob"),
        ("oci", "dataScienceJob"),
        ("Local", "local"),
    ],
)
def test_an_unknown_place_is_read_as_the_nearest(word: str, meant: str) -> None:
    found = faults_of(job("scriptPathURI: a.py", "bogus: 1", place=word))
    assert [fault.hint for fault in found if fault.path.endswith("type")] == [f"did you mean {meant!r}?"]
    assert "spec.infrastructure.spec.bogus" in [fault.path for fault in found]


def test_without_a_type_the_keys_tell() -> None:
    text = job("command: torchrun x\nreplicas: '2'", kind="~")
    assert [fault.path for fault in faults_of(text)] == ["spec.runtime.type", "spec.runtime.spec.replicas"]
    text = job("command: torchrun x\nbogus: 1", kind="qqqqqq")
    assert [fault.path for fault in faults_of(text)] == ["spec.runtime.type", "spec.runtime.spec.bogus"]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("[1, 2]\n", "", "a mapping is needed"),
        ("just words\n", "", "a mapping is needed"),
        ("kind: jobs\nspec: {runtime: {type: python, spec: {scriptPathURI: a}}}\n", "kind", "unknown kind"),
        ("spec: {runtime: {type: python, spec: {scriptPathURI: a}}}\n", "kind", "'kind' is missing"),
        (
            "kind: infrastructure\ntype: local\nspec: {runtime: {type: script, spec: {scriptPathURI: a}}}\n",
            "kind",
            "no job",
        ),
        ("kind: job\n", "spec", "'spec' is missing"),
        ("kind: job\nspec:\n", "spec", "'spec' is missing"),
        ("kind: job\nspec: 5\n", "spec", "a mapping is needed"),
        ("kind: job\nspec: {name: x}\n", "spec.runtime", "'runtime' is missing"),
        ("kind: job\nspec: {runtime: python}\n", "spec.runtime", "a mapping is needed"),
        ("kind: job\nspec: {runtime: {spec: {}}}\n", "spec.runtime.type", "'type' is missing"),
        ("kind: job\nspec: {runtime: {type: python, spec: []}}\n", "spec.runtime.spec", "a mapping is needed"),
        (
            "kind: job\napiVersion: [1]\nspec: {runtime: {type: python, spec: {scriptPathURI: a}}}\n",
            "apiVersion",
            "version",
        ),
        ("kind: pipeline\nspec: {steps: []}\n", "spec.steps", "needs steps"),
        ("kind: pipeline\nspec: {name: x}\n", "spec.steps", "needs steps"),
        ("kind: pipeline\nspec: {steps: [x]}\n", "spec.steps[0]", "a mapping is needed"),
    ],
)
def test_documents_of_the_wrong_form(text: str, path: str, message: str) -> None:
    found = faults_of(text)
    assert any(fault.path == path and message in fault.message for fault in found), found


@pytest.mark.parametrize(
    ("options", "key", "message"),
    [
        ("to: hub, name: clerk", "name", "it has no owner"),
        ("to: hub, name: a/b/c", "name", "cannot be the name of a model on the Hub"),
        ("to: hub, name: me/clerk, version: a b", "version", "cannot be the version of a model on the Hub"),
        ("name: clerk, public: true", "public", "for the Hub only"),
    ],
)
def test_a_model_that_could_not_be_filed_in_the_end(options: str, key: str, message: str) -> None:
    found = faults_of(f"kind: pipeline\nspec: {{steps: [{{name: s, register: {{model: m, {options}}}}}]}}\n")
    assert [fault.path for fault in found] == [f"spec.steps[0].register.{key}"]
    assert message in found[0].message
    assert found[0].column is not None


STRICT = [
    ("replicas: '2'", "replicas", "a whole number"),
    ("replicas: 2.0", "replicas", "a whole number"),
    ("replicas: true", "replicas", "a whole number"),
    ("replicas: two", "replicas", "a whole number"),
    ("replicas: [2]", "replicas", "a whole number"),
    ("replicas: -1", "replicas", "too small"),
    ("deepspeed: yes", "deepspeed", "true or false"),
    ("deepspeed: 'true'", "deepspeed", "true or false"),
    ("deepspeed: 1", "deepspeed", "true or false"),
    ("outputUri: 5", "outputUri", "text is needed"),
    ("outputUri: true", "outputUri", "text is needed"),
    ("outputUri: [a]", "outputUri", "text is needed"),
    ('outputUri: "a\\0b"', "outputUri", "cannot be passed on"),
    ("outputLayout: pernode", "outputLayout", "none of perNode, shared"),
    ("args: --epochs 3", "args", "a list"),
    ("args: [~]", "args[0]", "empty"),
    ("command: {a: b}", "command", "text is needed"),
    ("command: [torchrun, 3]", "command[1]", "text is needed"),
    ("inputs: [a]", "inputs", "a mapping"),
    ("inputs: {s3://x/y: 5}", 'inputs["s3://x/y"]', "text is needed"),
    ("freeformTags: {a: ~}", "freeformTags.a", "empty"),
    ("env: 5", "env", "a list of"),
    ("env: [5]", "env[0]", "a mapping"),
    ("env: [{value: x}]", "env[0].name", "missing"),
    ("env: [{name: A, valueFrom: x}]", "env[0].valueFrom", "unknown key"),
    ("env: [{name: 5, value: x}]", "env[0].name", "text is needed"),
    ("recipe: sft", "recipe", "a mapping"),
    ("recipe: {args: {a: 1}}", "recipe.name", "missing"),
    ("outputURI: a\noutputUri: b", "outputUri", "are the same"),
]


@pytest.mark.parametrize(("keys", "path", "message"), STRICT)
def test_types_are_strict(keys: str, path: str, message: str) -> None:
    start = "" if "command" in keys or "recipe" in keys else "command: torchrun x\n"
    found = faults_of(job(start + keys, kind="pyTorchDistributed"))
    assert [fault.path for fault in found] == [f"spec.runtime.spec.{path}"]
    assert message in found[0].message


RUNTIMES = [
    ("python", "args: []", "scriptPathURI"),
    ("script", "entrypoint: a.sh", "scriptPathURI"),
    ("container", "cmd: ls", "image"),
    ("gitPython", "entrypoint: a.py", "url"),
    ("gitPython", "url: https://x", "entrypoint"),
    ("notebook", "excludeTags: [a]", "notebookPathURI"),
    ("notebook", "source: folder", "entrypoint"),
    ("notebook", "source: folder\nentrypoint: a.ipynb\nnotebookPathURI: b.ipynb", "source"),
    ("pyTorchDistributed", "replicas: 2", "command"),
    ("pyTorchDistributed", "scriptPathURI: folder", "command"),
    ("pyTorchDistributed", "git: {url: u}", "command"),
    ("pyTorchDistributed", "command: '  '", "command"),
    ("pyTorchDistributed", "command: []", "command"),
    ("pyTorchDistributed", "command: a\nrecipe: {name: sft}", "command"),
    ("pyTorchDistributed", "command: a\ngit: {url: u}\nscriptPathURI: b", "scriptPathURI"),
    ("python", "recipe: {name: sft}\nentrypoint: a.py", "entrypoint"),
    ("container", "image: a\nrecipe: {name: sft}\ncmd: ls", "cmd"),
    ("neuronDistributed", "command: a\nmode: torchNeuron\nprecompile: true", "precompile"),
    ("neuronDistributed", "command: a\nmode: torchNeuron\nprecompileOnly: true", "precompileOnly"),
    ("neuronDistributed", "command: a\nprecompileOnly: true", "precompileOnly"),
    ("python", "scriptPathURI: a\nconda: {type: published}", "conda.uri"),
    ("python", "scriptPathURI: a\nconda: {uri: oci://x}", "conda.slug"),
    ("python", "scriptPathURI: a\nenv: [{name: A, value: x, secret: env:X}]", "env[0].secret"),
    ("python", "scriptPathURI: a\nenv: [{name: A, secret: vault/x}]", "env[0].secret"),
    ("python", "scriptPathURI: a\nenv: [{name: A, secret: ''}]", "env[0].secret"),
    ("python", "scriptPathURI: a\nenv: {B: 1, A: {secret: nope}}", "env.A.secret"),
    ("python", "scriptPathURI: a\nenv: ['A=1']", "env[0]"),
    ("python", "scriptPathURI: a\nenv: [{name: A, value: x}, {name: A, value: y}]", "env[1].name"),
    ("python", "scriptPathURI: a\nenv: {A: '${B}', B: 'x${C}', C: '${A}'}", "env.A"),
]


@pytest.mark.parametrize(("kind", "keys", "path"), RUNTIMES)
def test_runtimes_that_cannot_be(kind: str, keys: str, path: str) -> None:
    assert [fault.path for fault in faults_of(job(keys, kind=kind))] == [f"spec.runtime.spec.{path}"]


POSSIBLE = [
    ("pyTorchDistributed", "scriptPathURI: folder\nentrypoint: a.py"),
    ("pyTorchDistributed", "scriptPathURI: train.py"),
    ("pyTorchDistributed", "git: {url: u}\nentrypoint: a.py"),
    ("pyTorchDistributed", "recipe: {name: sft}\nscriptPathURI: data"),
    ("gitPython", "recipe: {name: sft}"),
    ("notebook", "recipe: {name: sft}"),
    ("python", "recipe: {name: sft}"),
    ("python", "scriptPathURI: a\nenv: {A: '$${A}', B: '${C}', D: '${UNKNOWN} ${D}'}"),
    ("python", "scriptPathURI: a\nenv: [{name: A, secret: ocid1.vaultsecret.oc1.iad.x}]"),
    (
        "python",
        "scriptPathURI: a\nenv: [{name: A, secret: 'arn:aws-us-gov:secretsmanager:us-gov-west-1:1:secret:x/y-Ab'}]",
    ),
    ("python", "scriptPathURI: a\nenv: [{name: A, secret: 'k8s:hub/token'}, {name: B, secret: <your secret>}]"),
]


@pytest.mark.parametrize(("kind", "keys"), POSSIBLE)
def test_runtimes_that_can_be(kind: str, keys: str) -> None:
    assert faults_of(job(keys, kind=kind)) == []


def test_empty_keys_are_keys_left_out() -> None:
    found = load(job("scriptPathURI: a\nreplicas:\nenv:\nargs: ~\noutputLayout: null\nconda:"))
    assert found == load(job("scriptPathURI: a"))


MOUNTS = "".join(f"- {{src: oci://b@n/p, dest: d{n}}}\n" for n in range(6))
CHANNELS = "".join(f"- {{channel: c{n}, uri: s3://b/{n}}}\n" for n in range(21))
DISK = "fileSystemId: fs-0123456789abcdef0, fileSystemType: FSxLustre, directoryPath: /x, accessMode: ro"
PLACES = [
    ("dataScienceJob", "storageMount:\n" + MOUNTS, "storageMount[5]"),
    ("dataScienceJob", "storageMount: [{src: bucket, dest: a}]", "storageMount[0].src"),
    (
        "dataScienceJob",
        "storageMount: [{src: 'oci://a@b/c', dest: a}, {src: '1.2.3.4:/e', dest: a/}]",
        "storageMount[1].dest",
    ),
    ("dataScienceJob", "shapeName: VM.GPU.A10.1\nshapeConfigDetails: {ocpus: 1}", "shapeConfigDetails"),
    ("sageMakerTrainingJob", "image: a\nframework: {name: pytorch}", "framework"),
    ("sageMakerTrainingJob", "maxRuntimeInSeconds: 10\nmaxWaitTimeInSeconds: 9", "maxWaitTimeInSeconds"),
    ("sageMakerTrainingJob", "useSpot: true\nkeepAlivePeriodInSeconds: 60", "keepAlivePeriodInSeconds"),
    ("sageMakerTrainingJob", "checkpointLocalPath: /x", "checkpointLocalPath"),
    ("sageMakerTrainingJob", "subnetIds: [a]", "subnetIds"),
    ("sageMakerTrainingJob", "securityGroupIds: [a]", "securityGroupIds"),
    ("sageMakerTrainingJob", "inputs:\n" + CHANNELS, "inputs[20]"),
    ("sageMakerTrainingJob", "inputs: [{channel: a}]", "inputs[0]"),
    ("sageMakerTrainingJob", "inputs: [{channel: a, uri: s3://x}, {channel: a, uri: s3://y}]", "inputs[1].channel"),
    ("sageMakerTrainingJob", f"inputs: [{{channel: a, {DISK}}}]", "inputs[0]"),
    ("sageMakerTrainingJob", "inputs: [{channel: a, uri: s3://x, directoryPath: /y}]", "inputs[0].directoryPath"),
    (
        "sageMakerTrainingJob",
        f"subnetIds: [a]\nsecurityGroupIds: [b]\ninputs: [{{channel: a, {DISK}, mode: Pipe}}]",
        "inputs[0].mode",
    ),
    ("sageMakerTrainingJob", "inputs: [{channel: cloudtune, uri: s3://x}]", "inputs[0].channel"),
    ("sageMakerTrainingJob", "inputs: [{channel: a b, uri: s3://x}]", "inputs[0].channel"),
    ("sageMakerTrainingJob", "inputs: [{channel: a, uri: /data}]", "inputs[0].uri"),
    ("sageMakerTrainingJob", "region: Oregon", "region"),
    ("sageMakerTrainingJob", "roleArn: sagemaker_execution_role", "roleArn"),
    ("sageMakerTrainingJob", "roleArn: arn:aws:iam::12:role/x", "roleArn"),
    ("sageMakerTrainingJob", "instanceType: ml.inf2.xlarge", "instanceType"),
    ("sageMakerTrainingJob", "outputPath: /mnt/out", "outputPath"),
    ("sageMakerTrainingJob", "checkpointUri: oci://b@n/p", "checkpointUri"),
    ("sageMakerTrainingJob", "stagingUri: file:///x", "stagingUri"),
    ("sageMakerTrainingJob", "outputKmsKeyId: a b", "outputKmsKeyId"),
    ("sageMakerTrainingJob", f"image: {'a' * 256}", "image"),
    ("sageMakerTrainingJob", "maxWaitTimeInSeconds: 9", "maxWaitTimeInSeconds"),
    ("sageMakerTrainingJob", "useSpot: true\nmaxRuntimeInSeconds: 10\nmaxWaitTimeInSeconds: 9", "maxWaitTimeInSeconds"),
    ("sageMakerTrainingJob", "keepAlivePeriodInSeconds: 21601", "keepAlivePeriodInSeconds"),
    ("sageMakerTrainingJob", "maxRetryAttempts: 31", "maxRetryAttempts"),
    ("sageMakerTrainingJob", f"subnetIds: [a]\nsecurityGroupIds: {['g'] * 6}", "securityGroupIds[5]"),
    ("sageMakerTrainingJob", "subnetIds: [a_b]\nsecurityGroupIds: [g]", "subnetIds[0]"),
    ("sageMakerTrainingJob", f"metricDefinitions: [{{name: a, regex: {'a' * 501}}}]", "metricDefinitions[0].regex"),
    ("sageMakerTrainingJob", "tags: {aws:x: y}", 'tags["aws:x"]'),
    ("sageMakerTrainingJob", "tags: {x: y;z}", "tags.x"),
    ("eksJob", "volumes: [{mountPath: /x}]", "volumes[0]"),
    ("eksJob", "volumes: [{mountPath: /x, claim: a, hostPath: /b}]", "volumes[0]"),
    ("eksJob", "volumes: [{mountPath: x, claim: a}]", "volumes[0].mountPath"),
    ("eksJob", "volumes: [{mountPath: /x, claim: a}, {mountPath: /x/, claim: b}]", "volumes[1].mountPath"),
    ("eksJob", "volumes: [{claim: a}]", "volumes[0].mountPath"),
    ("eksJob", "volumes: [{claim: A_b, mountPath: /x}]", "volumes[0].claim"),
    ("eksJob", "volumes: [{hostPath: x, mountPath: /x}]", "volumes[0].hostPath"),
    ("eksJob", "volumes: [{emptyDir: much, mountPath: /x}]", "volumes[0].emptyDir"),
    ("eksJob", "volumes: [{claim: a, mountPath: '/x:y'}]", "volumes[0].mountPath"),
    ("eksJob", "volumes: [{claim: a, mountPath: /x, subPath: ../y}]", "volumes[0].subPath"),
    ("eksJob", "namespace: team.a", "namespace"),
    ("eksJob", "serviceAccount: My_Account", "serviceAccount"),
    ("eksJob", "queue: UPPER", "queue"),
    ("eksJob", "imagePullSecrets: [ok, not_ok]", "imagePullSecrets[1]"),
    ("eksJob", "sharedMemory: 64 GB", "sharedMemory"),
    ("eksJob", "resources: {cpu: 8}", "resources.cpu"),
    ("eksJob", "resources: {requests: 8}", "resources.requests"),
    ("eksJob", "resources: {limits: {memory: eight}}", "resources.limits.memory"),
    ("eksJob", "resources: {limits: {a b: 1}}", 'resources.limits["a b"]'),
    ("eksJob", "labels: {a/b/c: d}", 'labels["a/b/c"]'),
    ("eksJob", "labels: {team: a b}", "labels.team"),
    ("eksJob", "nodeSelector: {pool: -}", "nodeSelector.pool"),
    ("eksJob", "annotations: {'': d}", 'annotations[""]'),
    ("eksJob", "tolerations: [{key: a, effect: Never}]", "tolerations[0].effect"),
    ("eksJob", "tolerations: [{value: a}]", "tolerations[0]"),
    ("eksJob", "tolerations: [{operator: Exists, keys: a}]", "tolerations[0].keys"),
    ("eksJob", "tolerations: [{operator: Exists, tolerationSeconds: soon}]", "tolerations[0].tolerationSeconds"),
    ("eksJob", "trainerApi: v1", "trainerApi"),
]


@pytest.mark.parametrize(("place", "keys", "path"), PLACES)
def test_places_that_cannot_be(place: str, keys: str, path: str) -> None:
    found = faults_of(job("scriptPathURI: a.py", keys, place=place))
    assert [fault.path for fault in found] == [f"spec.infrastructure.spec.{path}"]
    assert found[0].line


def test_what_is_still_to_be_filled_in_is_no_fault() -> None:
    place = "roleArn: arn:aws:iam::<your-account>:role/<your-role>\noutputPath: <your output path>\nregion: <region>"
    assert faults_of(job("scriptPathURI: a", place, place="sageMakerTrainingJob")) == []


def test_a_flexible_shape_has_a_size_and_a_place_may_have_the_image() -> None:
    assert (
        faults_of(
            job(
                "scriptPathURI: a",
                "shapeName: VM.Standard.E4.Flex\nshapeConfigDetails: {ocpus: 1}",
                place="dataScienceJob",
            )
        )
        == []
    )
    assert faults_of(job("cmd: ls", "image: a", kind="container", place="eksJob")) == []
    assert faults_of(job("cmd: ls", "framework: {name: pytorch}", kind="container", place="sageMakerTrainingJob")) == []


RUN = "job: {runtime: {type: python, spec: {scriptPathURI: a.py}}}"
NEURON = "job: {runtime: {type: neuronDistributed, spec: {command: torchrun a.py, %s}}}"
STEPS = [
    (f"- {{name: a, {RUN}}}\n- {{name: a, {RUN}}}", "[1].name", "taken"),
    (f"- {{name: a.b, {RUN}}}", "[0].name", "cannot be the name"),
    (f"- {{name: {'a' * 41}, {RUN}}}", "[0].name", "cannot be the name"),
    (f"- {{{RUN}}}", "[0].name", "missing"),
    ("- {name: a}", "[0]", "a job or a verb"),
    (f"- {{name: a, {RUN}, prepare: {{}}}}", "[0].prepare", "one thing"),
    ("- {name: a, prepare: {}, check: {model: m}}", "[0].check", "one thing"),
    (f"- {{name: a, prepare: {{}}, {RUN}}}", "[0].job", "one thing"),
    ("- {name: a, prepare: [x]}", "[0].prepare", "a mapping"),
    ("- {name: a, murge: {}}", "[0].murge", "unknown key"),
    (f"- {{name: a, needs: [b], {RUN}}}\n- {{name: b, needs: [a], {RUN}}}", "[0]", "a needs b needs a"),
    (f"- {{name: a, needs: [a], {RUN}}}", "[0].needs[0]", "itself"),
    (f"- {{name: train, {RUN}}}\n- {{name: b, needs: [trian], {RUN}}}", "[1].needs[0]", "no step"),
    ("- {name: a, prepare: {base: '${steps.b.outputs}'}}", "[0].prepare.base", "no step"),
    ("- {name: a, prepare: {base: '${steps.a.outputs}'}}", "[0].prepare.base", "its own"),
    (
        f"- {{name: a, {RUN}}}\n- {{name: b, prepare: {{base: ['${{steps.a.uri}}']}}}}",
        "[1].prepare.base[0]",
        "only its outputs",
    ),
    (f"- {{name: a, {RUN}}}\n- {{name: b, prepare: {{base: '${{steps.a}}'}}}}", "[1].prepare.base", "only its outputs"),
    (
        "- {name: a, job: {runtime: {type: python, spec: {scriptPathURI: x, inputs: {'${steps.c.outputs}': d}}}}}",
        '[0].job.runtime.spec.inputs["${steps.c.outputs}"]',
        "no step",
    ),
    ("- {name: a, job: {runtime: {type: python}}}", "[0].job.runtime.spec.scriptPathURI", "no code"),
    ("- {name: a, job: {name: x}}", "[0].job.runtime", "missing"),
    ("- {name: a, job: {runtme: {}}}", "[0].job.runtme", "unknown key"),
    (
        "- {name: a, infrastructure: {type: local}, job: {infrastructure: {type: local}, runtime: {type: python, spec: {scriptPathURI: x}}}}",
        "[0].job.infrastructure",
        "already",
    ),
    (
        "- {name: a, infrastructure: {type: eksJob, spec: {volumes: [{mountPath: /x}]}}, check: {model: m}}",
        "[0].infrastructure.spec.volumes[0]",
        "exactly one",
    ),
    ("- {name: a, merge: {adapter: [x]}}", "[0].merge.base", "missing"),
    ("- {name: a, merge: [x]}", "[0].merge", "a mapping"),
    ("- {name: a, merge: {base: x, adapter: y, mode: pfet}}", "[0].merge.mode", "none of"),
    ("- {name: a, register: {model: x, name: y, versoin: '1'}}", "[0].register.versoin", "unknown key"),
    ("- {name: a, check: {model: 5}}", "[0].check.model", "text is needed"),
    ("- {name: a, deploy: }", "[0].deploy.model", "missing"),
    (f"- {{name: train, {RUN}}}\n- {{name: b, precompile: trian}}", "[1].precompile", "no other step is called"),
    ("- {name: a, precompile: a}", "[0].precompile", "no other step is called"),
    (f"- {{name: a, {RUN}}}\n- {{name: b, precompile: a}}", "[1].precompile", "nothing to compile"),
    (f"- {{name: a, {NEURON % 'mode: torchNeuron'}}}\n- {{name: b, precompile: a}}", "[1].precompile", "nothing to"),
    (f"- {{name: a, {NEURON % 'mode: xla'}}}\n- {{name: b, precompile: a}}", "[1].precompile", "would be lost"),
    (f"- {{name: a, {NEURON % 'compileCacheUri: /c'}}}\n- {{name: b, precompile: a, {RUN}}}", "[1].job", "one thing"),
    ("- {name: b, precompile: }", "[0]", "a job or a verb"),
]


@pytest.mark.parametrize(("steps", "path", "message"), STEPS)
def test_steps_that_cannot_be(steps: str, path: str, message: str) -> None:
    found = faults_of("kind: pipeline\nspec:\n  steps:\n" + textwrap.indent(steps, "  ") + "\n")
    assert [fault.path for fault in found] == [f"spec.steps{path}"]
    assert message in found[0].message


def test_a_needed_step_that_is_misspelt_gets_a_hint() -> None:
    steps = f"  - {{name: train, {RUN}}}\n  - {{name: b, prepare: {{base: '${{steps.trian.outputs}}'}}}}\n"
    (fault,) = faults_of("kind: pipeline\nspec:\n  steps:\n" + steps)
    assert fault.hint == "did you mean 'train'?"


def test_what_is_misspelt_is_not_missing_as_well() -> None:
    text = job("imag: x", kind="container")
    assert [fault.path for fault in faults_of(text)] == ["spec.runtime.spec.imag"]
    text = job("image: 5", kind="container")
    assert [fault.path for fault in faults_of(text)] == ["spec.runtime.spec.image"]


def test_a_refused_value_gets_no_second_fault() -> None:
    text = job("scriptPathURI: &a x\nreplicas: *a\nenv: *a")
    messages = [fault.message for fault in faults_of(text)]
    assert len(messages) == 3
    assert all("are not read" in message for message in messages)


def test_variables_that_grow_without_bound_are_refused() -> None:
    lines = [f"V{n}: '" + f"${{V{n + 1}}}" * 10 + "'" for n in range(30)]
    text = job("scriptPathURI: a\nenv:\n" + textwrap.indent("\n".join([*lines, "V30: x"]), "  "))
    (fault,) = faults_of(text)
    assert "grow without bound" in fault.message


def test_thousands_of_faults_are_said_and_counted() -> None:
    text = job("scriptPathURI: a\n" + "\n".join(f"bogus{n}: 1" for n in range(5000)))
    found = faults_of(text)
    assert len(found) == 1001
    assert "4000 more" in found[-1].message


@pytest.mark.parametrize(
    ("name", "meant"),
    [("my.var", "my_var"), ("A-B", "A_B"), ("2X", "_2X"), ("ÜBER", "_BER"), ("A B", "A_B"), ("-", "_")],
)
def test_names_that_shells_drop_are_refused(name: str, meant: str) -> None:
    for env in (f"[{{name: '{name}', value: x}}]", f"{{'{name}': x}}", f"['{name}']"):
        (fault,) = faults_of(job(f"scriptPathURI: a\nenv: {env}"))
        assert "cannot be the name of a variable" in fault.message
        assert fault.path.startswith("spec.runtime.spec.env")
        assert meant in str(fault.hint)
    runtime = PythonRuntime(script_path_uri="a.py", env={name: "x"})
    with pytest.raises(SpecError, match="cannot be the name of a variable"):
        checked(JobSpec(runtime=runtime))
    with pytest.raises(SpecError, match="cannot be the name of a variable"):
        load(job("scriptPathURI: a"), env=[f"{name}=x"])


def test_no_fault_shows_what_may_be_a_secret() -> None:
    for env in (
        "[HF_TOKEN=hf_secret]",
        "HF_TOKEN=hf_secret",
        "[{name: A, secret: hf_secret}]",
        "{A: {secret: hf_secret}}",
        "{A: x}\ninputs: {'https://me:hf_secret@h/x': 5}",
        "{A: x}\ninputs: {'https://me:hf_secret@h/x': a, 'https://me:hf_secret@h/x': b}",
        "{A: x}\n'https://h/x?token=hf_secret': 5",
    ):
        found = faults_of(job(f"scriptPathURI: a\nenv: {env}"))
        assert found
        assert "hf_secret" not in "".join(str(fault) for fault in found)
    for options in (
        {"set": ["runtime.env[0]=A=hf_secret"]},
        {"env": ["=hf_secret"]},
        {"set": ["runtime.env=hf_secret"]},
    ):
        found = faults_of(job("scriptPathURI: a"), **options)
        assert found
        assert "hf_secret" not in "".join(str(fault) for fault in found)


LARGE = {
    "steps that need unknown ones": "kind: pipeline\nspec:\n  steps:\n"
    + "".join(f"  - {{name: s{n}, needs: [t{n}], prepare: {{}}}}\n" for n in range(5000)),
    "steps in a row": "kind: pipeline\nspec:\n  steps:\n"
    + "".join(f"  - {{name: s{n}, needs: [s{n + 1}], prepare: {{}}}}\n" for n in range(5000)),
    "variables with bad names": job("scriptPathURI: a\nenv:\n" + "".join(f"  'A {n}': x\n" for n in range(20_000))),
    "volumes without anything": job("scriptPathURI: a", f"volumes: [{','.join(['{}'] * 20_000)}]", place="eksJob"),
    "a value that grows": job("scriptPathURI: a\nenv:\n  B: " + "x" * 1000 + "\n  A: '" + "${B}" * 150_000 + "'"),
    "a value of open references": job("args: x\nenv:\n  A: '" + "${" * 300_000 + "'"),
    "a key as long as a file": "kind: job\n'" + "a" * 900_000 + "': 1\n",
}


@pytest.mark.parametrize("name", LARGE)
def test_large_documents_are_refused_in_linear_time(name: str) -> None:
    """Each of these took minutes, or would, where a check compared everything with everything."""
    assert 1 <= len(faults_of(LARGE[name])) <= 1001
