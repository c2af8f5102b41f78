from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudtune.errors import SpecError
from cloudtune.launch.commands import command_of, container_argv, recipe_flags
from cloudtune.node.archives import SUFFIXES
from cloudtune.spec.runtimes import (
    ContainerRuntime,
    GitPythonRuntime,
    GitSource,
    NeuronDistributedRuntime,
    NotebookRuntime,
    PythonRuntime,
    PyTorchDistributedRuntime,
    Recipe,
    Runtime,
    ScriptRuntime,
)


@pytest.mark.parametrize(
    ("runtime", "command"),
    [
        (ScriptRuntime(script_path_uri="code/train.py", args=("--lr", "1e-4")), "python -u train.py --lr 1e-4"),
        (ScriptRuntime(script_path_uri="code\\train.py"), "python -u train.py"),
        (ScriptRuntime(script_path_uri="oci://b@n/x/run.sh"), "bash run.sh"),
        (ScriptRuntime(script_path_uri="bin/run"), "./run"),
        (ScriptRuntime(script_path_uri="https://h/x/train.py?signature=a/b.zip"), "python -u train.py"),
        (ScriptRuntime(script_path_uri="code/", entrypoint="bin/run", args=("x",)), "bin/run x"),
        (ScriptRuntime(script_path_uri="code.zip", entrypoint="a/run.py"), "python -u a/run.py"),
        (
            PythonRuntime(script_path_uri="train.py", entry_function="main", args=("a", "b=1")),
            "@agent call train.py main a b=1",
        ),
        (GitPythonRuntime(url="https://g/x.git", entrypoint="train.py"), "python -u train.py"),
        (GitPythonRuntime(url="https://g/x.git", entrypoint="t.py", entry_function="f"), "@agent call t.py f"),
        (NotebookRuntime(notebook_path_uri="a/b.ipynb"), "@agent notebook b.ipynb"),
        (
            NotebookRuntime(
                source="code/", entrypoint="x/b.ipynb", exclude_tags=("skip", "slow"), notebook_encoding="utf-8"
            ),
            "@agent notebook x/b.ipynb --exclude-tag skip --exclude-tag slow --encoding utf-8",
        ),
        (ContainerRuntime(image="i"), ""),
        (ContainerRuntime(image="i", cmd=("python", "x.py"), args=("y",)), "python x.py y"),
        (ContainerRuntime(image="i", entrypoint=("sh", "-c"), cmd=("a b",)), "sh -c a b"),
        (PyTorchDistributedRuntime(command=("torchrun", "t.py"), args=("a b",)), "torchrun t.py a b"),
        (PyTorchDistributedRuntime(script_path_uri="t.py", args=("x",)), "torchrun t.py x"),
        (PyTorchDistributedRuntime(script_path_uri="c/", entrypoint="t.py", command=" "), "torchrun t.py"),
        (PyTorchDistributedRuntime(git=GitSource(url="https://g/x"), entrypoint="t.py"), "torchrun t.py"),
        (PyTorchDistributedRuntime(script_path_uri="c/", entrypoint="run.sh"), "bash run.sh"),
        (
            PyTorchDistributedRuntime(recipe=Recipe(name="sft", args={"maxLength": 512})),
            "torchrun sft.py --max-length 512",
        ),
        (NeuronDistributedRuntime(recipe=Recipe(name="sft")), "torchrun sft.py"),
        (ScriptRuntime(recipe=Recipe(name="tokenize", args={"a": 1}), args=("x",)), "python -u tokenize.py --a 1 x"),
    ],
)
def test_the_command_of_a_runtime(runtime: Runtime, command: str) -> None:
    built = command_of(runtime).command
    assert isinstance(built, tuple)
    assert " ".join(built) == command


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".ZIP", ".zip?signature=x"])
def test_an_archive_is_no_entrypoint(suffix: str) -> None:
    for source in (f"https://h/code{suffix}", *([f"a/code{suffix}"] if "?" not in suffix else [])):
        with pytest.raises(SpecError, match="nothing says which file starts"):
            command_of(ScriptRuntime(script_path_uri=source))


def test_a_users_line_is_not_rewritten() -> None:
    line = "torchrun   --nnodes 2 x.py \\\n  --name $NAME  # a comment"
    assert command_of(PyTorchDistributedRuntime(command=line)).command == line


def test_arguments_are_quoted_behind_a_line() -> None:
    runtime = PyTorchDistributedRuntime(command="torchrun x.py \n", args=("a b", "$HOME", "--x"))
    assert command_of(runtime).command == "torchrun x.py 'a b' '$HOME' --x"


def test_what_has_no_effect_is_said() -> None:
    runtime = PyTorchDistributedRuntime(command="torchrun x.py", entrypoint="y.py", entry_function="f")
    assert [path for path, _ in command_of(runtime).warnings] == [
        "spec.runtime.spec.entrypoint",
        "spec.runtime.spec.entryFunction",
    ]
    assert (
        command_of(NotebookRuntime(notebook_path_uri="b.ipynb", args=("x",))).warnings[0][0] == "spec.runtime.spec.args"
    )


def test_a_containers_string_is_split_on_commas_and_a_list_is_exact() -> None:
    command, warnings = command_of(ContainerRuntime(image="i", entrypoint="/bin/sh,-c", cmd=("a, b",)))
    assert command == ("/bin/sh", "-c", "a, b")
    assert [path for path, _ in warnings] == ["spec.runtime.spec.entrypoint"]
    assert "a list is exact" in warnings[0][1]
    assert container_argv("") == container_argv(None) == ()


@pytest.mark.parametrize(
    ("runtime", "path"),
    [
        (ScriptRuntime(), "spec.runtime.spec.entrypoint"),
        (ScriptRuntime(script_path_uri="code/"), "spec.runtime.spec.entrypoint"),
        (ScriptRuntime(script_path_uri="code.tar.gz"), "spec.runtime.spec.entrypoint"),
        (GitPythonRuntime(url="https://g/x.git"), "spec.runtime.spec.entrypoint"),
        (NotebookRuntime(), "spec.runtime.spec.notebookPathURI"),
        (NotebookRuntime(source="code/"), "spec.runtime.spec.entrypoint"),
        (PyTorchDistributedRuntime(), "spec.runtime.spec.command"),
        (PyTorchDistributedRuntime(script_path_uri="code/"), "spec.runtime.spec.entrypoint"),
        (PyTorchDistributedRuntime(script_path_uri="t.py", entry_function="f"), "spec.runtime.spec.entryFunction"),
        (PyTorchDistributedRuntime(command="x", recipe=Recipe(name="sft")), "spec.runtime.spec.recipe"),
        (ContainerRuntime(cmd=("x",), recipe=Recipe(name="sft")), "spec.runtime.spec.recipe"),
    ],
)
def test_nothing_to_start_or_two_things_are_faults(runtime: Runtime, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        command_of(runtime)
    assert [fault.path for fault in caught.value.faults] == [path]
    assert caught.value.faults[0].hint


def test_a_runtime_of_an_unknown_type_is_a_fault() -> None:
    with pytest.raises(SpecError, match=r"spec\.runtime\.type"):
        command_of(Runtime())


@pytest.mark.parametrize(
    ("args", "flags"),
    [
        (
            {"learningRate": 2e-4, "lora_r": 8, "bf16": True, "packing": False},
            "--learning-rate 0.0002 --lora-r 8 --bf16 true --packing false",
        ),
        ({"outputURI": "s3://b", "URIPath": "x", "maxLength2": 1}, "--output-uri s3://b --uri-path x --max-length2 1"),
        ({"modules": ["q", "v"], "none": None, "empty": []}, "--modules q v --empty"),
        ({"fsdpConfig": {"version": 2, "names": ["é"]}}, '--fsdp-config {"version": 2, "names": ["é"]}'),
    ],
)
def test_a_recipes_options_are_flags(args: dict[str, Any], flags: str) -> None:
    runtime = ScriptRuntime(recipe=Recipe(name="r", args=args))
    assert " ".join(command_of(runtime).command) == f"python -u r.py {flags}"
    assert " ".join(recipe_flags(args)) == flags


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-zA-Z0-9_]{0,12}", fullmatch=True), st.text() | st.integers() | st.booleans()
    )
)
def test_every_option_is_one_flag_and_one_word(args: dict[str, Any]) -> None:
    flags = recipe_flags(args)
    assert len(flags) == 2 * len(args)
    for key, value, flag, word in zip(args, args.values(), flags[::2], flags[1::2], strict=True):
        assert flag.startswith("--")
        assert flag.replace("-", "").lower() == key.replace("_", "").lower()
        assert isinstance(value, (int, bool)) or word == value
