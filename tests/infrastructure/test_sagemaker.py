"""infrastructure/sagemaker: its template is fresh, right by CloudFormation's own rules, and grants what is called."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from cloudtune import rights

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infrastructure" / "sagemaker"
TEMPLATE = yaml.safe_load((FOLDER / "template.yaml").read_text())
FACTS = {
    "account": "123456789012",
    "region": "us-west-2",
    "bucket": "outputs",
    "repository": "images/tune",
    "secrets": "cloudtune/",
    "images": "763104351884",
    "training_role": "tune-training",
    "serving_role": "tune-serving",
    "import_role": "tune-import",
}
#: Calls of the SDK that go by another right: IAM has no action of their names.
OTHERWISE = {
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:GetBucketLocation": "s3:GetBucketLocation",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:ListParts": "s3:ListMultipartUploadParts",
    "bedrock:Converse": "bedrock:InvokeModel",
    "bedrock:ConverseStream": "bedrock:InvokeModelWithResponseStream",
}
#: Kinds of handles, which are called as services are.
PSEUDO = {"training_job", "model", "endpoint_config", "endpoint", "import_job", "imported_model", "container"}
PREFIXES = {"sagemaker_runtime": "sagemaker", "bedrock_runtime": "bedrock", "service_quotas": "servicequotas"}


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_make_template", FOLDER / "make_template.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_template_is_what_the_table_of_rights_makes():
    made = generator().text()
    assert made == (FOLDER / "template.yaml").read_text(), "run: python infrastructure/sagemaker/make_template.py"


def test_cloudformations_own_rules_find_nothing():
    pytest.importorskip("cfnlint", reason="cfn-lint is not installed")
    run = "from cfnlint.runner import main; main()"
    argv = [sys.executable, "-c", run, "--regions", "us-west-2", "--", str(FOLDER / "template.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_feature_of_a_right_is_one_of_the_template():
    features = {right.feature for right in rights.rights("aws").values()}
    assert {one.capitalize() for one in features} < set(TEMPLATE["Parameters"])
    page = (FOLDER / "README.md").read_text()
    assert all(f"| `{one.capitalize()}` |" in page for one in features)


def test_each_statement_is_one_that_iam_reads():
    for right in rights.rights("aws").values():
        statement = json.loads(right.statement(FACTS))
        assert "{" not in json.dumps([statement["Action"], statement["Resource"]])
        assert "<" not in right.statement(FACTS)
        assert all(re.fullmatch(r"[a-z0-9]+(-[a-z]+)*:[A-Z]\w+", action) for action in statement["Action"]), right.id
        for resource in statement["Resource"]:
            assert resource == "*" or re.fullmatch(r"arn:aws:[a-z0-9]+:[\w-]*:(\d{12})?:[\w.*/:-]+", resource), right.id
        narrow = "*" not in statement["Resource"] or "Condition" in statement
        assert narrow or right.id == "training.network" or re.search("narrower|doctor|import", right.why), right.id


def test_no_right_may_everything():
    """A star stands in no action, and where a resource is a star, nothing of it can be changed but for networks."""
    for right in rights.rights("aws").values():
        assert not any("*" in action for action in right.actions), right.id
        if right.resources == ("*",) and right.id not in {"training.network", "users.imports"}:
            assert all(re.search(r":(Get|List|Describe|Put)\w+", action) for action in right.actions), right.id


def test_operations_lead_to_rights_with_their_action():
    table = rights.rights("aws")
    for name, needed in rights.operations("aws").items():
        assert set(needed) <= set(table), name
        _, service, operation = name.split(".")
        called = "".join(word.capitalize() for word in operation.split("_"))
        action = f"{PREFIXES.get(service, service)}:{called}"
        action = OTHERWISE.get(action, action)
        mine = {one for right in needed for one in table[right].actions}
        assert action in mine or name == "aws.sts.get_caller_identity", (name, action)


def test_operations_are_those_of_the_sdk():
    session = pytest.importorskip("botocore.session").Session()
    models: dict[str, set[str]] = {}
    for name in rights.operations("aws"):
        _, service, operation = name.split(".")
        if service not in models:
            model = session.get_service_model(service.replace("_", "-"))
            models[service] = {one.lower() for one in model.operation_names}
        assert operation.replace("_", "") in models[service], name


def test_every_right_has_an_operation():
    used = {right for needed in rights.operations("aws").values() for right in needed}
    assert set(rights.rights("aws")) - used == {"users.endpoint_logs"}


def test_roles_are_taken_by_their_services_in_this_account_alone():
    for name, service in (("Training", "sagemaker"), ("Serving", "sagemaker"), ("Import", "bedrock")):
        (trust,) = TEMPLATE["Resources"][f"{name}Role"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": f"{service}.amazonaws.com"}
        assert trust["Condition"]["StringEquals"]["aws:SourceAccount"] == {"Ref": "AWS::AccountId"}


def test_the_bucket_stays_and_is_nobody_elses():
    bucket = TEMPLATE["Resources"]["Bucket"]
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())


def test_every_operation_that_is_called_has_its_rights():
    """A new call on AWS needs a row in cloudtune/rights/aws.json, of which the template is made."""
    called = called_by_clients()
    assert {"aws.sagemaker.create_training_job", "aws.bedrock.create_model_import_job", "aws.s3.put_object"} <= called
    of_clusters = set(rights.operations("kubernetes"))  # infrastructure/eks grants it
    assert of_clusters <= called
    assert sorted(called - of_clusters - set(rights.operations("aws"))) == []


def called_by_clients() -> set[str]:
    """Return the operations that modules which speak of AWS's services name as text."""
    session = pytest.importorskip("botocore.session").Session()
    xform = pytest.importorskip("botocore").xform_name
    known: dict[str, set[str]] = {}
    found: set[str] = set()
    for path in sorted((ROOT / "cloudtune").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        services = set(re.findall(r"[\"']aws\.([a-z0-9_]+)[\"']", text)) - PSEUDO
        if {"rehearsal", "rights"} & set(path.parts) or not services:
            continue
        words = {
            node.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for service in services:
            if service not in known:
                names = session.get_service_model(service.replace("_", "-")).operation_names
                known[service] = {xform(name) for name in names}
            found |= {f"aws.{service}.{name}" for name in known[service] & words}
    return found
