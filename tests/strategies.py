"""Hypothesis strategies for every value of a spec, made from the fields themselves."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from cloudtune.spec.convert import plain
from cloudtune.spec.environment import EnvironmentVariable
from cloudtune.spec.fields import Key, keys_of
from cloudtune.spec.infrastructure import INFRASTRUCTURES, Infrastructure
from cloudtune.spec.job import OPTIONS, VERBS, JobSpec, PipelineSpec, PipelineStep
from cloudtune.spec.runtimes import RUNTIMES, Runtime

#: Texts that some reading of YAML takes for something else.
TRAPS = (
    *("on", "off", "yes", "no", "y", "true", "False", "null", "~", "", " ", "0", "010", "-1", "1_000", "1e-5", ".5"),
    *("1.", "0x1F", "0o17", ".inf", ".nan", "12:30:00", "2024-05-01", "=", "<<", "- a", "a: b", "a:", "? x", "# no"),
    *("x # y", "{a}", "[a", "*a", "&a", "!a", "%a", "@a", "`a", "'", '"', "|", ">", "---", "...", "one\ntwo", "one\n"),
    *("\none", "one\n\n", " lead", "trail ", "a\tb", "\r\n", "\x85", "\u2028", "\ufeff", "é", "😀", "\x7f", "\x1b[0m"),
    *("$HOME", "$$x", "<your token>", "oci://b@n/p", "a" * 200, "two\n  three\nfour"),
)
_LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.one_of(st.sampled_from(TRAPS), st.text(_LETTERS, max_size=20))
WORD = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,8}", fullmatch=True)
NUMBER = st.one_of(st.integers(-(10**18), 10**18), st.floats(allow_nan=False, allow_infinity=False))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
_FORMS: dict[str, SearchStrategy[Any]] = {
    "text": TEXT,
    "integer": st.integers(0, 10**9),
    "number": st.one_of(st.integers(0, 10**6), st.floats(0, 1e9)),
    "boolean": st.booleans(),
    "texts": st.lists(TEXT, max_size=3).map(tuple),
    "numbers": st.lists(st.floats(-1e9, 1e9), max_size=3).map(tuple),
    "command": st.one_of(TEXT, st.lists(TEXT, max_size=3).map(tuple)),
    "textMap": st.dictionaries(TEXT, TEXT, max_size=3),
    "json": JSON,
    "jsonMap": st.dictionaries(TEXT, JSON, max_size=3),
    "jsonMaps": st.lists(st.dictionaries(TEXT, JSON, max_size=2), max_size=2).map(tuple),
}
SECRETS = (
    "ocid1.vaultsecret.oc1.iad.abc",
    "arn:aws:secretsmanager:us-east-1:123456789012:secret:hub-AbC",
    "k8s:hub/token",
    "env:HF_TOKEN",
)


def of_key(key: Key) -> SearchStrategy[Any]:
    """Return a strategy for what one key may hold."""
    if key.choices:
        return st.sampled_from(key.choices)
    if key.form.cls is EnvironmentVariable:
        return environments()
    if key.form.cls is not None:
        inner = values(key.form.cls)
        return inner if key.form.kind == "value" else st.lists(inner, max_size=3).map(tuple)
    if key.minimum is not None:
        whole = st.integers(int(key.minimum), 10**6)
        return whole if key.form.kind == "integer" else st.one_of(whole, st.floats(key.minimum, 1e9))
    return _FORMS[key.form.kind]


def values(cls: type[Any]) -> SearchStrategy[Any]:
    """Return a strategy for any value of a class, its keys set or left out."""

    @st.composite
    def build(draw: st.DrawFn) -> Any:
        keys = keys_of(cls)
        chosen = draw(st.sets(st.sampled_from([key.name for key in keys]), max_size=6))
        given = {key.name: draw(of_key(key)) for key in keys if key.required or key.name in chosen}
        return cls(**given)

    return build()


@st.composite
def environments(draw: st.DrawFn) -> tuple[EnvironmentVariable, ...]:
    """Return variables of every form, each name once."""
    found = []
    for name in draw(st.lists(WORD, max_size=4, unique=True)):
        form = draw(st.sampled_from(["value", "secret", "bare"]))
        if form == "value":
            found.append(EnvironmentVariable(name=name, value=draw(TEXT)))
        elif form == "secret":
            found.append(EnvironmentVariable(name=name, secret=draw(st.sampled_from(SECRETS))))
        else:
            found.append(EnvironmentVariable(name=name))
    return tuple(found)


# --- values that can be


def runtimes(kind: str) -> SearchStrategy[Runtime]:
    """Return a strategy for runtimes of a type that pass every check."""
    return values(RUNTIMES[kind]).map(_possible_runtime)


def infrastructures(kind: str) -> SearchStrategy[Infrastructure]:
    """Return a strategy for infrastructures of a type that pass every check."""
    return values(INFRASTRUCTURES[kind]).map(_possible_infrastructure)


def any_runtime() -> SearchStrategy[Runtime]:
    """Return a strategy for runtimes of every type."""
    return st.sampled_from(list(RUNTIMES)).flatmap(runtimes)


def any_infrastructure() -> SearchStrategy[Infrastructure]:
    """Return a strategy for infrastructures of every type."""
    return st.sampled_from(list(INFRASTRUCTURES)).flatmap(infrastructures)


def jobs() -> SearchStrategy[JobSpec]:
    """Return a strategy for jobs that pass every check."""
    return st.builds(
        JobSpec,
        name=st.none() | TEXT,
        infrastructure=any_infrastructure(),
        runtime=any_runtime(),
        id=st.none() | TEXT,
    )


def verb_options(verb: str) -> SearchStrategy[dict[str, Any]]:
    """Return a strategy for the options of a verb."""
    return values(OPTIONS[verb]).map(plain)


@st.composite
def pipelines(draw: st.DrawFn) -> PipelineSpec:
    """Return pipelines whose steps need earlier ones, by name or by a reference to their outputs."""
    steps: list[PipelineStep] = []
    for name in draw(st.lists(WORD, min_size=1, max_size=4, unique=True)):
        earlier = [step.name for step in steps]
        needs = tuple(draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True))) if earlier else ()
        place = draw(st.none() | any_infrastructure())
        if draw(st.booleans()):
            job = draw(st.builds(JobSpec, name=st.none() | TEXT, runtime=any_runtime()))
            if place is None:
                job = attrs.evolve(job, infrastructure=draw(any_infrastructure()))
            steps.append(PipelineStep(name=name, needs=needs, infrastructure=place, job=job))
        else:
            verb = draw(st.sampled_from(VERBS))
            options = draw(st.dictionaries(WORD, JSON, max_size=3) if verb == "prepare" else verb_options(verb))
            options = _possible_options(verb, options)
            if earlier:
                word = "base" if verb in {"merge", "consolidate"} else "model"
                options[word] = f"${{steps.{draw(st.sampled_from(earlier))}.outputs}}/final"
            steps.append(PipelineStep(name=name, needs=needs, infrastructure=place, verb=verb, options=options))
    shuffled = draw(st.permutations(steps))
    place = draw(any_infrastructure())
    return PipelineSpec(name=draw(st.none() | TEXT), infrastructure=place, steps=tuple(shuffled))


#: Names and versions that a registry takes, and shapes that a place of deployments has, of all texts.
_REGISTERED: dict[str | None, tuple[str, str | None]] = {
    "hub": ("owner/name", "v1.0"),
    "bedrock": ("clerk", "2"),
    "sagemaker": ("clerk", None),
}
_SHAPES = {"oci": "VM.GPU.A10.1", "sagemaker": "ml.g5.xlarge"}


def _possible_options(verb: str, drawn: dict[str, Any]) -> dict[str, Any]:
    """Change what cannot be in the drawn options of a verb."""
    options, to = dict(drawn), drawn.get("to")
    if verb == "register":
        name, version = _REGISTERED.get(to, (options["name"], options.get("version")))
        options |= {"name": name} | ({"version": version} if "version" in options else {})
        if to != "hub":
            options.pop("public", None)
    if to in {None, "folder", "hub", "local"}:
        for key in ("infrastructure", "image", "replicas", "shape", "maxLength"):  # of clouds
            options.pop(key, None)
    elif verb == "deploy":
        options["shape"] = _SHAPES[to]
    return {key: value for key, value in options.items() if value is not None}


_CODE = ("command", "cmd", "entrypoint", "entry_function", "notebook_path_uri", "source")


def _possible_runtime(runtime: Any) -> Any:
    """Change what cannot be in a drawn runtime."""
    changed: dict[str, Any] = {}
    conda = getattr(runtime, "conda", None)
    if conda is not None:
        word = "slug" if conda.type == "service" else "uri"
        changed["conda"] = attrs.evolve(conda, **{word: getattr(conda, word) or "x"})
    if runtime.recipe is not None:
        changed |= {name: None for name in _CODE if hasattr(runtime, name)}
    elif runtime.type in {"script", "python"}:
        changed["script_path_uri"] = runtime.script_path_uri or "train.py"
    elif runtime.type == "gitPython":
        changed |= {"url": runtime.url or "https://example.org/r.git", "entrypoint": runtime.entrypoint or "train.py"}
    elif runtime.type == "notebook" and runtime.notebook_path_uri:
        changed["source"] = None
    elif runtime.type == "notebook":
        changed |= {"notebook_path_uri": None, "source": "folder", "entrypoint": "train.ipynb"}
    elif runtime.type != "container":
        blank = not runtime.command or not "".join(runtime.command).strip()
        changed["command"] = "torchrun train.py" if blank else runtime.command
    if runtime.type == "container":
        changed["image"] = runtime.image or "image:1"
    if getattr(runtime, "git", None) is not None:
        changed["script_path_uri"] = None
    if getattr(runtime, "mode", "xla") != "xla":
        changed["precompile"] = changed["precompile_only"] = None
    elif not getattr(runtime, "compile_cache_uri", "none"):
        changed["precompile_only"] = None
    return attrs.evolve(runtime, **changed)


#: Texts that SageMaker's API takes, by attribute of the spec.
_TRAINING_JOB = {
    "region": "us-west-2",
    "role_arn": "arn:aws:iam::123456789012:role/trainer",
    "instance_type": "ml.g5.12xlarge",
    "output_path": "s3://b/out",
    "staging_uri": "s3://b/code",
    "checkpoint_local_path": "/opt/ml/checkpoints",
    "volume_kms_key_id": "alias/volumes",
    "output_kms_key_id": "alias/outputs",
}

#: Texts that the API of Kubernetes takes, by attribute of the spec.
_CLUSTER_JOB = {
    "namespace": "team-a",
    "trainer_api": "v2.1",
    "shared_memory": "8Gi",
    "service_account": "trainer",
    "queue": "team",
    "priority_class": "high",
}


def _possible_infrastructure(place: Any) -> Any:
    """Change what cannot be in a drawn infrastructure."""
    changed: dict[str, Any] = {}
    if place.type == "dataScienceJob":
        mounts = (attrs.evolve(mount, src="oci://b@n/p", dest=f"d{n}") for n, mount in enumerate(place.storage_mount))
        changed["storage_mount"] = tuple(mounts)
        if place.shape_config_details is not None:
            changed["shape_name"] = "VM.Standard.E4.Flex"
    elif place.type == "sageMakerTrainingJob":
        changed["image"] = "image:1" if place.image and place.framework is None else None
        changed |= {"max_wait_time_in_seconds": None, "keep_alive_period_in_seconds": None}
        changed |= {name: text for name, text in _TRAINING_JOB.items() if getattr(place, name) is not None}
        changed |= {"checkpoint_uri": "s3://b/c", "max_retry_attempts": min(place.max_retry_attempts or 1, 30)}
        changed |= {"tags": {f"k{n}": "v" for n in range(len(place.tags))}}
        metrics = (attrs.evolve(metric, name=f"m{n}", regex="(x)") for n, metric in enumerate(place.metric_definitions))
        changed["metric_definitions"] = tuple(metrics)
        both = bool(place.subnet_ids or place.security_group_ids)
        changed |= {"subnet_ids": ("subnet-1",), "security_group_ids": ("sg-1",)} if both else {}
        plain = {"file_system_id": None, "file_system_type": None, "directory_path": None, "uri": "s3://b/p"}
        channels = (attrs.evolve(one, channel=f"c{n}", **plain) for n, one in enumerate(place.inputs))
        changed["inputs"] = tuple(channels)
    elif place.type == "eksJob":
        one = {"claim": "data", "host_path": None, "empty_dir": None}
        one |= {"sub_path": None}
        volumes = (attrs.evolve(volume, mount_path=f"/v{n}", **one) for n, volume in enumerate(place.volumes))
        changed["volumes"] = tuple(volumes)
        changed |= {name: value for name, value in _CLUSTER_JOB.items() if getattr(place, name) is not None}
        changed["image_pull_secrets"] = tuple(f"s{n}" for n in range(len(place.image_pull_secrets)))
        changed["tolerations"] = ({"key": "k", "operator": "Exists"},) * len(place.tolerations)
        changed["resources"] = {"requests": {"cpu": 1}, "limits": {"memory": "2Gi"}} if place.resources else {}
        for word in ("labels", "node_selector", "annotations"):
            changed[word] = {f"k{n}": f"v{n}" for n in range(len(getattr(place, word)))}
    return attrs.evolve(place, **changed)
