"""What every runtime has: arguments, environment, nodes, inputs and outputs, dependencies, limits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from cloudtune.errors import Fault, SpecError
from cloudtune.spec import hiding
from cloudtune.spec.environment import EnvironmentVariable, described, environment
from cloudtune.spec.fields import flat, setting

if TYPE_CHECKING:
    from typing_extensions import Self


@attrs.frozen(kw_only=True)
class Conda:
    """A conda environment of OCI Data Science: a service environment by slug or a published pack by URI."""

    type: str = setting("`service` or `published`.", default="service", choices=("service", "published"))
    slug: str | None = setting("Slug of a service environment, e.g. `pytorch20_p39_gpu_v2`.")
    uri: str | None = setting("`oci://bucket@namespace/path` of a published pack.")
    region: str | None = setting("Region of the published pack's bucket.")


@attrs.frozen(kw_only=True)
class Dependencies:
    """Python packages that the node installs, in a private environment, before the command starts."""

    pip_packages: str | None = setting("Requirements and pip options as on pip's command line, e.g. `peft 'trl>=1'`.")
    pip_requirements: str | None = setting("Path of a requirements file inside the code.")


@attrs.frozen(kw_only=True)
class Recipe:
    """A training script that cloudtune ships, in place of code and command."""

    name: str = attrs.field(metadata={"doc": "Name of the recipe, e.g. `sft`."})
    args: Mapping[str, Any] = setting("Options of the recipe, camelCase.", default={})


@attrs.frozen(kw_only=True)
class GitSource:
    """Code from a git repository, at a branch or a commit."""

    url: str = attrs.field(repr=hiding.described, metadata={"doc": "URL of the repository."})
    branch: str | None = setting("Branch or tag.")
    commit: str | None = setting("Commit id; beats the branch.")
    git_secret_id: str | None = setting("OCID of the Vault secret that holds the SSH key.")


def arguments(args: tuple[object, ...], options: Mapping[str, object]) -> tuple[str, ...]:
    """Return arguments of a command line as Oracle ADS makes them from a call's arguments."""
    words = [str(item) for item in args]
    for key, value in options.items():
        if " " in key:
            raise SpecError([Fault(path="args", message=f"the option {key!r} has a space in its name")])
        words += [f"--{key}"] if value is None else [f"--{key}", str(value)]
    return tuple(words)


@attrs.frozen(kw_only=True)
class Runtime:
    """What every runtime has."""

    type: ClassVar[str] = ""

    args: tuple[str, ...] = setting("Arguments of the script, one item each.", default=())
    env: tuple[EnvironmentVariable, ...] = setting(
        "Environment variables: a list or a mapping.", default=(), converter=environment, describe=described
    )
    replicas: int | None = setting("Number of nodes.", minimum=1)
    processes_per_node: int | None = setting(
        "Processes a node; default: the shape's accelerators or Neuron cores.", minimum=1
    )
    inputs: Mapping[str, str] = setting("Files to fetch before the start: `{URI: path}`.", default={})
    output_dir: str | None = setting("Folder whose files are outputs; default `$CLOUDTUNE_OUTPUT_DIR`.")
    output_uri: str | None = setting("Where outputs go: any fsspec URI.", aliases=("outputURI",))
    output_layout: str = setting(
        "`perNode` keeps the files of node K > 0 below `node-K/`; `shared` puts all nodes' files in one place.",
        default="perNode",
        choices=("perNode", "shared"),
    )
    dependencies: Dependencies | None = setting("Python packages to install on the node.", of=Dependencies)
    recipe: Recipe | None = setting("A training script that cloudtune ships, in place of code and command.", of=Recipe)
    allow_files: tuple[str, ...] = setting(
        "Files that look like credentials and travel with the code all the same.", default=()
    )
    allow_placeholders: bool = setting(
        "Text in angle brackets that reads like a placeholder, `<your name>`, is meant as it is.", default=False
    )
    rendezvous_timeout_in_seconds: int = setting(
        "How long a node waits for the others before it gives up and names who came.", default=600, minimum=1
    )
    maximum_runtime_in_minutes: int | None = setting("The run is stopped after so many minutes.", minimum=1)
    freeform_tags: Mapping[str, str] = setting("Free-form tags (OCI) or tags.", default={})
    defined_tags: Mapping[str, Any] = setting("OCI defined tags: `{namespace: {key: value}}`.", default={})

    def with_args(self, *args: str | Sequence[str]) -> "Self":
        """Arguments of the script, in place of those it had."""
        return attrs.evolve(self, args=flat(args))

    def with_argument(self, *args: object, **options: object) -> "Self":
        """Append arguments: the positional ones, then `--key value` for each keyword; None leaves the flag alone."""
        return attrs.evolve(self, args=(*self.args, *arguments(args, options)))

    def with_env(self, env: Mapping[str, Any] | Iterable[EnvironmentVariable | str]) -> "Self":
        """Environment variables, in place of those it had: a mapping, or variables and bare names."""
        return attrs.evolve(self, env=environment(env))

    def with_environment_variable(self, **variables: Any) -> "Self":
        """Environment variables as keywords, in place of those it had; `NAME={"secret": REF}` is a secret."""
        return attrs.evolve(self, env=environment(variables)) if variables else self

    def with_replicas(self, replicas: int | None) -> "Self":
        """Number of nodes."""
        return attrs.evolve(self, replicas=replicas)

    def with_replica(self, count: int | None) -> "Self":
        """Number of nodes."""
        return attrs.evolve(self, replicas=count)

    def with_processes_per_node(self, processes_per_node: int | None) -> "Self":
        """Processes a node; default: the shape's accelerators or Neuron cores."""
        return attrs.evolve(self, processes_per_node=processes_per_node)

    def with_inputs(self, inputs: Mapping[str, str]) -> "Self":
        """Files to fetch before the start: `{URI: path}`."""
        return attrs.evolve(self, inputs=inputs)

    def with_output_dir(self, output_dir: str | None) -> "Self":
        """Folder whose files are outputs; default `$CLOUDTUNE_OUTPUT_DIR`."""
        return attrs.evolve(self, output_dir=output_dir)

    def with_output_uri(self, output_uri: str | None) -> "Self":
        """Where outputs go: any fsspec URI."""
        return attrs.evolve(self, output_uri=output_uri)

    def with_output_layout(self, output_layout: str) -> "Self":
        """`perNode` keeps the files of node K > 0 below `node-K/`; `shared` puts all nodes' files in one place."""
        return attrs.evolve(self, output_layout=output_layout)

    def with_dependencies(self, dependencies: Dependencies | None) -> "Self":
        """Python packages to install on the node."""
        return attrs.evolve(self, dependencies=dependencies)

    def with_dependency(self, pip_req: str | None = None, pip_pkg: str | None = None) -> "Self":
        """Python packages to install on the node: a requirements file, words of pip's command line, or both."""
        if not pip_req and not pip_pkg:
            return self
        dependencies = Dependencies(pip_requirements=pip_req or None, pip_packages=pip_pkg or None)
        return attrs.evolve(self, dependencies=dependencies)

    def with_recipe(self, name: str | Recipe | None, **args: Any) -> "Self":
        """A training script that cloudtune ships, by name with its options, in place of code and command."""
        return attrs.evolve(self, recipe=Recipe(name=name, args=args) if isinstance(name, str) else name)

    def with_allow_files(self, *allow_files: str | Sequence[str]) -> "Self":
        """Files that look like credentials and travel with the code all the same."""
        return attrs.evolve(self, allow_files=flat(allow_files))

    def with_allow_placeholders(self, allow_placeholders: bool = True) -> "Self":
        """Text in angle brackets that reads like a placeholder, `<your name>`, is meant as it is."""
        return attrs.evolve(self, allow_placeholders=allow_placeholders)

    def with_rendezvous_timeout_in_seconds(self, rendezvous_timeout_in_seconds: int) -> "Self":
        """How long a node waits for the others before it gives up and names who came."""
        return attrs.evolve(self, rendezvous_timeout_in_seconds=rendezvous_timeout_in_seconds)

    def with_maximum_runtime_in_minutes(self, maximum_runtime_in_minutes: int | None) -> "Self":
        """The run is stopped after so many minutes."""
        return attrs.evolve(self, maximum_runtime_in_minutes=maximum_runtime_in_minutes)

    def with_freeform_tags(self, freeform_tags: Mapping[str, str]) -> "Self":
        """Free-form tags, in place of those it had."""
        return attrs.evolve(self, freeform_tags=freeform_tags)

    def with_freeform_tag(self, **tags: str) -> "Self":
        """Free-form tags as keywords, in place of those it had."""
        return attrs.evolve(self, freeform_tags=tags)

    def with_defined_tags(self, defined_tags: Mapping[str, Any]) -> "Self":
        """OCI defined tags: `{namespace: {key: value}}`, in place of those it had."""
        return attrs.evolve(self, defined_tags=defined_tags)

    def with_defined_tag(self, **tags: Mapping[str, Any]) -> "Self":
        """OCI defined tags as keywords `namespace={key: value}`, in place of those it had."""
        return attrs.evolve(self, defined_tags=tags)


@attrs.frozen(kw_only=True)
class CondaRuntime(Runtime):
    """What a runtime has whose programs run in a conda environment of OCI Data Science."""

    conda: Conda | None = setting("Conda environment (OCI Data Science).", of=Conda)

    def with_conda(self, conda: Conda | None) -> "Self":
        """Conda environment (OCI Data Science)."""
        return attrs.evolve(self, conda=conda)

    def with_service_conda(self, slug: str) -> "Self":
        """A conda environment of the service, by slug."""
        return attrs.evolve(self, conda=Conda(type="service", slug=slug))

    def with_custom_conda(self, uri: str, region: str | None = None) -> "Self":
        """A published conda environment, by URI; the region only where the bucket is in another one."""
        return attrs.evolve(self, conda=Conda(type="published", uri=uri, region=region or None))
