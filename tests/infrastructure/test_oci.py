"""infrastructure/oci: read as Terraform, held against the provider's documentation, and against what cloudtune calls."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cloudtune import rights
from cloudtune.spec.document import load
from cloudtune.spec.oci import DataScienceJob

pytest.importorskip("hcl2", reason="python-hcl2 is not installed")

from tests.infrastructure import policies
from tests.infrastructure.terraform import META, Module, arguments, texts

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infrastructure" / "oci"
PROVIDER = json.loads(Path(__file__).with_name("oci_provider.json").read_text())
FACTS = {
    "compartment": "ocid1.compartment.oc1..aaa",
    "network": "ocid1.compartment.oc1..nnn",
    "vault": "ocid1.compartment.oc1..vvv",
    "bucket": "outputs",
    "metrics": "tuning",
    "repository": "images/tune",
    "region": "us-ashburn-1",
    "users": "trainers",
    "job_runs": "tune-job-runs",
    "deployments": "tune-deployments",
}
VARIABLES = {
    "tenancy_id": "ocid1.tenancy.oc1..ttt",
    "compartment_id": FACTS["compartment"],
    "network_compartment_id": FACTS["network"],
    "vault_compartment_id": FACTS["vault"],
    "region": FACTS["region"],
    "home_region": "us-phoenix-1",
    "users": FACTS["users"],
    "bucket": FACTS["bucket"],
    "metrics_namespace": FACTS["metrics"],
    "repository": FACTS["repository"],
    "name": "tune",
}
FEATURES = sorted({right.feature for right in rights.rights().values()})
#: Locals of rights.tf, with the blanks of oci.json for the variables.
BLANKS = {
    "compartment_id": "compartment",
    "bucket": "bucket",
    "repository": "repository",
    "metrics_namespace": "metrics",
}


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(FOLDER)


# --- as Terraform


def test_every_reference_leads_somewhere(module):
    known = {f"var.{name}" for name in module.variables} | {f"local.{name}" for name in module.locals}
    known |= set(module.resources) | {f"data.{name}" for name in module.data}
    assert {head for head, _ in module.references()} <= known


def test_every_attribute_that_is_read_is_exported(module):
    tables = {"data": PROVIDER["data"], "resource": PROVIDER["resources"]}
    read = [(head, name) for head, name in module.references() if head.startswith(("oci_", "data.")) and name]
    assert len(read) > 10
    for head, name in read:
        table = tables["data" if head.startswith("data.") else "resource"]
        kind = head.removeprefix("data.").partition(".")[0]
        assert name in table[kind]["exported"], f"{head}.{name}"


def test_every_variable_is_used_and_described(module):
    used = {head for head, _ in module.references()}
    for name, body in module.variables.items():
        assert f"var.{name}" in used, name
        assert body["description"].endswith("."), name
        assert body["type"], name
    for name, body in module.outputs.items():
        assert body["description"].endswith("."), name
    required = {name for name, body in module.variables.items() if "default" not in body}
    example = (FOLDER / "terraform.tfvars.example").read_text()
    assert set(re.findall(r"^(\w+) +=", example, re.MULTILINE)) == required


def test_the_provider_is_pinned_to_the_release_that_was_read(module):
    (providers,) = module.terraform["required_providers"]
    assert providers["oci"]["version"] == PROVIDER["version"]


@pytest.mark.parametrize("kind", ["resources", "data"])
def test_every_argument_is_one_of_the_provider(module, kind):
    blocks = getattr(module, kind)
    assert blocks
    for address, body in blocks.items():
        facts = PROVIDER[kind][address.partition(".")[0]]
        required, optional = set(facts["required"]), set(facts["optional"])
        given = {name for name in arguments(body) if name.partition(".")[0] not in META}
        assert given <= required | optional, f"{address}: {given - required - optional}"
        needed = {name for name in required if "." not in name or name.rpartition(".")[0] in given}
        assert needed <= given, f"{address}: {needed - given}"


def test_what_the_provider_file_knows_is_used(module):
    used = {address.partition(".")[0] for address in (*module.resources, *module.data)}
    assert used == {*PROVIDER["resources"], *PROVIDER["data"]}


def test_groups_and_policies_are_made_in_the_home_region(module):
    for address, body in module.resources.items():
        assert ("oci.home" in body.get("provider", "")) == address.startswith("oci_identity_")


def test_nodes_reach_each_other_and_nobody_reaches_them(module):
    security = module.resources["oci_core_security_list.jobs"]
    (inwards,) = security["ingress_security_rules"]
    assert (inwards["protocol"], inwards["source"]) == ("all", "${var.subnet_cidr}")
    subnet = module.resources["oci_core_subnet.nodes"]
    assert subnet["prohibit_public_ip_on_vnic"] is True
    assert subnet["cidr_block"] == "${var.subnet_cidr}"
    assert "oci_core_internet_gateway" not in {address.partition(".")[0] for address in module.resources}
    assert module.resources["oci_objectstorage_bucket.jobs"]["access_type"] == "NoPublicAccess"


def test_the_printed_yaml_is_a_job(module):
    value = module.outputs["job_yaml"]["value"]
    assert "<<-YAML" in value
    lines = value.splitlines()[1:-1]
    filled = re.sub(r"\$\{[^}]+\}", "ocid1.thing.oc1.iad.aaa", "\n".join(line[2:] for line in lines))
    job = load(f"kind: job\nspec:\n{filled}\n  runtime: {{kind: runtime, type: container, spec: {{image: a/b}}}}\n")
    place = job.infrastructure
    assert isinstance(place, DataScienceJob)
    assert all((place.compartment_id, place.project_id, place.subnet_id, place.log_group_id, place.log_id))
    assert place.storage_mount[0].src.startswith("oci://")


# --- the rights


def granted(module) -> dict[str, tuple[str, str]]:
    """Return the rights of rights.tf as oci.json has them: id -> (feature, may)."""
    blanks = {f"var.{name}": f"{{{blank}}}" for name, blank in BLANKS.items()}
    blanks |= {"local.network": "{network}", "local.vault": "{vault}"}
    for name in ("compartment", "the_bucket", "the_images", "the_metrics"):
        blanks[f"local.{name}"] = filled(module.locals[name], blanks)
    return {
        f"{who}.{name}": (feature, filled(may, blanks))
        for who in rights_of(module)
        for feature, table in module.locals[f"{who}_may"].items()
        for name, may in table.items()
    }


def rights_of(module) -> list[str]:
    return [name.removesuffix("_may") for name in module.locals if name.endswith("_may")]


def filled(text: str, blanks: dict[str, str]) -> str:
    return re.sub(r"\$\{([\w.]+)\}", lambda found: blanks[found[1]], text)


def test_terraform_grants_the_rights_of_the_table_and_no_others(module):
    assert granted(module) == {name: (right.feature, right.may) for name, right in rights.rights().items()}


def test_each_right_says_above_itself_what_it_is_for():
    lines = [line.strip() for line in (FOLDER / "rights.tf").read_text().splitlines()]
    said = {
        (found[1], lines[number - 1].removeprefix("# "))
        for number, line in enumerate(lines)
        if (found := re.fullmatch(r"(\w+) += \"(?:inspect|read|use|manage) .*", line))
    }
    assert said == {(name.partition(".")[2], right.why) for name, right in rights.rights().items()}


def test_every_feature_can_be_chosen(module):
    features = {right.feature for right in rights.rights().values()}
    default = set(module.variables["features"]["default"])
    assert default == features
    readme = (FOLDER / "README.md").read_text()
    assert all(f"`{feature}`" in readme for feature in features)


@pytest.mark.parametrize("right", rights.rights().values(), ids=lambda right: right.id)
def test_every_statement_is_one_that_oci_takes(right):
    statement = policies.read(right.statement(FACTS))
    assert statement.subject in {subject.format(**FACTS) for subject in subjects()}
    if statement.place == "tenancy":
        assert statement.verb == "inspect"
    if statement.resource in {"buckets", "objects", "object-family", "metrics", "repos"}:
        assert statement.variables, "least rights: a condition names which one"


def subjects() -> list[str]:
    return [right.subject for right in rights.rights().values()]


def test_the_grammar_refuses_what_oci_refuses():
    for wrong in (
        "allow group trainers to run data-science-jobs in tenancy",
        "allow group trainers to use data-science-job in tenancy",
        "allow group trainers to use objects in compartment id trainers where",
        "allow trainers to use objects in tenancy",
        "allow group trainers to use objects in tenancy where target.bucket.name=outputs",
        "allow group trainers to use objects in tenancy where target.repo.name='x'",
        "allow group trainers use objects in tenancy",
    ):
        with pytest.raises(ValueError, match=r"no |has no"):
            policies.read(wrong)
    many = "Allow dynamic-group id ocid1.dynamicgroup.oc1..a to use objects in compartment a:b"
    found = policies.read(f"{many} where any {{target.bucket.name='x', target.bucket.name = 'y'}}")
    assert found.variables == ("target.bucket.name",) * 2


def test_every_right_is_needed_by_an_operation_and_every_need_is_a_right():
    needed = {name for names in rights.operations().values() for name in names}
    assert needed == set(rights.rights())


def test_what_is_not_known_of_a_statement_is_left_to_the_reader():
    (right,) = rights.needed_for("oci.secrets", "get_secret_bundle")
    assert right.statement() == (
        "allow dynamic-group <dynamic group of job runs> to read secret-bundles in compartment id <compartment of the vault>"
    )
    assert rights.needed_for("oci.secrets", "get_secret_bundle", who="users") == ()
    assert rights.needed_for("oci.data_science", "no_such") == rights.needed_for("else.s3", "put_object") == ()


# --- against what cloudtune calls


def test_every_operation_that_is_called_has_its_rights():
    """A new call on Oracle Cloud needs a row in cloudtune/rights/oci.json, and its right in rights.tf."""
    called = {*called_by_clients(), *called_on_nodes(), *called_by_ocifs()}
    assert {"oci.data_science.create_job", "oci.secrets.get_secret_bundle", "oci.object_storage.put_object"} <= called
    assert sorted(called - set(rights.operations())) == []


def test_operations_are_named_as_the_sdk_names_them():
    without = {"oci.artifacts.push", "oci.artifacts.pull"}  # docker's
    asked = {name for name in rights.operations() if not name.startswith("oci.model_deployment.")}  # by plain HTTP
    assert asked - without <= {name for names in methods().values() for name in names}


def methods() -> dict[str, set[str]]:
    """Return the operations of the SDK by the short name: ``get_job`` -> {``oci.data_science.get_job``}."""
    pytest.importorskip("oci", reason="the oci SDK is not installed")
    from importlib import import_module

    from cloudtune.clients.oci import CLIENTS

    found: dict[str, set[str]] = {}
    for service, classes in CLIENTS.items():
        for where, name in classes:
            for method, _ in inspect.getmembers(getattr(import_module(f"oci.{where}"), name), inspect.isfunction):
                if not method.startswith("_"):
                    found.setdefault(method, set()).add(f"{service}.{method}")
    return found


def called_by_clients() -> set[str]:
    """Return the operations that modules which speak of Oracle's services name as text."""
    known, found = methods(), set()
    for path in sorted((ROOT / "cloudtune").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        services = set(re.findall(r"[\"'](oci\.[a-z_]+)[\"']", text))
        if {"rehearsal", "rights"} & set(path.parts) or not services or "CLIENTS: dict" in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {one for one in known.get(node.value, ()) if one.rpartition(".")[0] in services}
    return found


def called_on_nodes() -> set[str]:
    """Return the operations that the agent calls on the SDK's own clients."""
    known, found = methods(), set()
    for path in sorted((ROOT / "cloudtune" / "node").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                found |= known.get(node.func.attr, set())
    return found


#: Operations of ocifs for what cloudtune never does: buckets are not made or removed, objects not copied in place.
NEVER = {
    *("create_bucket", "delete_bucket", "list_buckets", "get_namespace", "get_namespace_metadata"),
    *("copy_object", "rename_object", "get_bucket_namespace_for_given_mount_name"),
}


def called_by_ocifs() -> set[str]:
    """Return the operations of Object Storage that files at oci:// cost."""
    core = pytest.importorskip("ocifs.core", reason="ocifs is not installed")
    names = set(re.findall(r"oci_client\.(\w+)", inspect.getsource(core)))
    return {f"oci.object_storage.{name}" for name in names - NEVER}


# --- by Terraform itself, where it is installed


def terraform(folder: Path, *argv: str, stdin: str | None = None) -> str:
    command = shutil.which("terraform") or shutil.which("tofu")
    if command is None:
        pytest.skip("terraform is not installed")
    environ = {**os.environ, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [command, *argv], cwd=folder, env=environ, input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_files_are_formatted():
    assert terraform(FOLDER, "fmt", "-check", "-recursive").strip() == ""


def evaluated(folder: Path, expression: str, **variables: object) -> object:
    """Return the value that Terraform itself gives an expression over rights.tf, which needs no provider."""
    for name in ("variables.tf", "rights.tf"):
        shutil.copy(FOLDER / name, folder)
    (folder / "terraform.tfvars.json").write_text(json.dumps({**VARIABLES, **variables}))
    return json.loads(json.loads(terraform(folder, "console", stdin=f"jsonencode({expression})\n")))


def test_terraform_makes_these_statements_of_it(tmp_path):
    features = [feature for feature in FEATURES if feature != "notebooks"]
    found = evaluated(tmp_path, "local.statements", features=features)
    expected: dict[str, set[str]] = {feature: set() for feature in features}
    for right in rights.rights().values():
        if right.feature in expected:
            expected[right.feature].add(right.statement(FACTS))
    assert {feature: set(statements) for feature, statements in found.items()} == expected
    assert sum(map(len, found.values())) == sum(map(len, expected.values()))


def test_features_decide_how_many(tmp_path):
    features = ["jobs", "storage", "notebooks"]
    found = evaluated(tmp_path, "local.statements", features=features, users="'Dom'/'My group'")
    assert set(found) == set(features)
    statements = [statement for several in found.values() for statement in several]
    notebooks = [statement for statement in statements if "tune-notebooks" in statement]
    people = [statement for statement in statements if "'Dom'/'My group'" in statement]
    assert len(notebooks) == len(people) == 10
    for statement in statements:
        policies.read(statement)


def test_no_policy_has_more_statements_than_oci_takes(tmp_path):
    found = evaluated(tmp_path, "local.statements", features=FEATURES)
    assert max(map(len, found.values())) <= 50


def test_no_secret_and_no_ocid_of_anybody_stands_in_the_files(module):
    everything = [
        text for part in (module.resources, module.locals, module.variables, module.outputs) for text in texts(part)
    ]
    assert not [text for text in everything if re.search(r"ocid1\.\w+\.oc\d", text)]
