"""Write template.yaml from the table of rights: ``python infrastructure/sagemaker/make_template.py``.

The rights are those of cloudtune/rights/aws.json, by which errors and doctor name what is missing; what is written here
is who takes them, the bucket, the repository of images, and what is printed in the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cloudtune.rights import Right, rights

PATH = Path(__file__).with_name("template.yaml")
HEAD = """# Roles, policies, a bucket and a repository of images for SageMaker and Bedrock: least rights a feature.
# Written by make_template.py from cloudtune/rights/aws.json; a test keeps it fresh. README.md says how to use it.
"""
#: What stands in the template for the blanks of rights.
BLANKS = {
    "account": "${AWS::AccountId}",
    "region": "${AWS::Region}",
    "bucket": "${BucketName}",
    "repository": "${Repository}",
    "secrets": "${SecretsPrefix}",
    "images": "${ImagesAccount}",
    "training_role": "${Name}-training",
    "serving_role": "${Name}-serving",
    "import_role": "${Name}-import",
}
#: Features by what they are for; those that a first job needs are on by default.
FEATURES = {
    "training": "run, watch, logs, status, cancel, delete.",
    "storage": "the bucket: inputs, outputs, checkpoints, models.",
    "secrets": "env secret: nodes read secrets whose names begin with SecretsPrefix.",
    "network": "subnetIds and securityGroupIds.",
    "registry": "build --push into a repository of this account.",
    "models": "register --to sagemaker.",
    "deployments": "deploy --to sagemaker, invoke.",
    "bedrock": "register --to bedrock, invoke.",
    "doctor": "what only doctor looks at - roles and quotas.",
}
ON = ("training", "storage", "secrets", "doctor")
#: Who takes rights beside users, by the name of the role; and the feature without which nobody needs the role.
ROLES = {"training": ("Training", "training"), "serving": ("Serving", "deployments"), "imports": ("Import", "bedrock")}


def filled(text: str) -> Any:
    """Return a text with blanks as CloudFormation fills them in."""
    found = re.sub(r"\{(\w+)\}", lambda blank: BLANKS[blank[1]], text).replace("arn:aws:", "arn:${AWS::Partition}:")
    return {"Fn::Sub": found} if "${" in found else found


def everywhere(value: Any) -> Any:
    """Return a condition with its blanks filled in."""
    if isinstance(value, dict):
        return {key: everywhere(item) for key, item in value.items()}
    return [everywhere(item) for item in value] if isinstance(value, list) else filled(value)


def statement(right: Right) -> dict[str, Any]:
    """Return a right as a statement; its name is the one that the table has."""
    name = "".join(word.capitalize() for word in re.split(r"[._]", right.id))
    resources = [filled(one) for one in right.resources]
    made: dict[str, Any] = {"Sid": name, "Effect": "Allow", "Action": list(right.actions), "Resource": resources}
    return made if right.condition is None else {**made, "Condition": everywhere(dict(right.condition))}


def policy(who: str, feature: str) -> dict[str, Any] | None:
    """Return the policy of somebody for a feature; None if they need no right for it."""
    theirs = [right for right in rights("aws").values() if right.who == who and right.feature == feature]
    return {"Version": "2012-10-17", "Statement": [statement(one) for one in theirs]} if theirs else None


def role(who: str) -> dict[str, Any]:
    """Return a role that a service takes in this account, and in no other's name."""
    name, feature = ROLES[who]
    service = next(right.subject for right in rights("aws").values() if right.who == who)
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
    }
    policies = [
        named if one == feature else {"Fn::If": [condition(one), named, {"Ref": "AWS::NoValue"}]}
        for one in FEATURES
        if (made := policy(who, one)) is not None
        for named in ({"PolicyName": one, "PolicyDocument": made},)
    ]
    return {
        "Type": "AWS::IAM::Role",
        "Condition": condition(feature),
        "Properties": {
            "RoleName": {"Fn::Sub": f"${{Name}}-{name.lower()}"},
            "Description": f"{service} takes it for cloudtune.",
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": policies,
        },
    }


def of_users(feature: str) -> dict[str, Any]:
    """Return the policy of the people for a feature."""
    attached = {
        key: {"Fn::If": [f"Has{one}", [{"Ref": one}], {"Ref": "AWS::NoValue"}]}
        for key, one in (("Groups", "UsersGroup"), ("Roles", "UsersRole"))
    }
    return {
        "Type": "AWS::IAM::ManagedPolicy",
        "Condition": condition(feature),
        "Properties": {
            "ManagedPolicyName": {"Fn::Sub": f"${{Name}}-{feature}"},
            "Description": f"cloudtune - {FEATURES[feature]}",
            **attached,
            "PolicyDocument": policy("users", feature),
        },
    }


def condition(feature: str) -> str:
    """Return the name of the condition under which a feature is wanted."""
    return f"With{feature.capitalize()}"


def parameters() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is asked for."""
    yield "Name", {"Default": "cloudtune", "AllowedPattern": "[a-z0-9-]{1,32}", "Description": "Begins all names."}
    pattern = "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
    yield "BucketName", {"AllowedPattern": pattern, "Description": "Bucket for inputs, outputs and models."}
    yield "CreateBucket", switch("Make the bucket; false if it is there already.", on=True)
    for kind in ("Group", "Role"):
        described = f"IAM {kind.lower()} of the people who run jobs; empty to attach the policies by hand."
        yield f"Users{kind}", {"Default": "", "Description": described}
    yield "Repository", {"Default": "cloudtune", "Description": "Repository in ECR for images that are built."}
    yield "SecretsPrefix", {"Default": "cloudtune/", "Description": "What names of secrets for jobs begin with."}
    account = {"Default": "763104351884", "AllowedPattern": "[0-9]{12}"}
    yield "ImagesAccount", {**account, "Description": "Account of AWS's own images in this region."}
    for feature, text in FEATURES.items():
        yield feature.capitalize(), switch(text[0].upper() + text[1:], on=feature in ON)


def switch(text: str, *, on: bool) -> dict[str, Any]:
    """Return a parameter that is true or false."""
    return {"Default": "true" if on else "false", "AllowedValues": ["true", "false"], "Description": text}


def bucket() -> dict[str, Any]:
    """Return a bucket that stays when the stack goes, and that nobody outside can see."""
    closed = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    rule = {
        "Id": "unfinished-uploads",
        "Status": "Enabled",
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    encryption = {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    return {
        "Type": "AWS::S3::Bucket",
        "Condition": "WithBucket",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "BucketName": {"Ref": "BucketName"},
            "PublicAccessBlockConfiguration": dict.fromkeys(closed, True),
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [encryption]},
            "LifecycleConfiguration": {"Rules": [rule]},
        },
    }


def bucket_policy() -> dict[str, Any]:
    """Return the bucket's own policy: nothing goes over a line that can be listened to."""
    arn = "arn:${AWS::Partition}:s3:::${BucketName}"
    deny = {
        "Sid": "EncryptedLinesOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [{"Fn::Sub": arn}, {"Fn::Sub": f"{arn}/*"}],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    document = {"Version": "2012-10-17", "Statement": [deny]}
    properties = {"Bucket": {"Ref": "Bucket"}, "PolicyDocument": document}
    return {"Type": "AWS::S3::BucketPolicy", "Condition": "WithBucket", "Properties": properties}


def repository() -> dict[str, Any]:
    """Return the repository of images, which are looked through for known weaknesses."""
    return {
        "Type": "AWS::ECR::Repository",
        "Condition": condition("registry"),
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "RepositoryName": {"Ref": "Repository"},
            "ImageScanningConfiguration": {"ScanOnPush": True},
            "ImageTagMutability": "MUTABLE",
        },
    }


def outputs() -> dict[str, Any]:
    """Return what is printed in the end: keys of sageMakerTrainingJob first."""
    lines = ("region: ${AWS::Region}", "roleArn: ${TrainingRole.Arn}", "outputPath: s3://${BucketName}/jobs")
    text = {"Fn::Sub": "\n".join(lines)}
    found: dict[str, Any] = {}
    for who, (name, feature) in ROLES.items():
        service = next(right.subject for right in rights("aws").values() if right.who == who)
        value = {"Fn::GetAtt": [f"{name}Role", "Arn"]}
        described = f"Role that {service} takes."
        found[f"{name}RoleArn"] = {"Condition": condition(feature), "Description": described, "Value": value}
    job = {"Condition": condition("training"), "Description": "Keys of sageMakerTrainingJob.", "Value": text}
    return {"JobYaml": job, **found}


def template() -> dict[str, Any]:
    """Return the template."""
    wanted = {condition(one): {"Fn::Equals": [{"Ref": one.capitalize()}, "true"]} for one in FEATURES}
    given = {f"Has{one}": {"Fn::Not": [{"Fn::Equals": [{"Ref": one}, ""]}]} for one in ("UsersGroup", "UsersRole")}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "What must exist before cloudtune can run jobs on SageMaker.",
        "Parameters": {name: {"Type": "String", **body} for name, body in parameters()},
        "Conditions": {**wanted, "WithBucket": {"Fn::Equals": [{"Ref": "CreateBucket"}, "true"]}, **given},
        "Resources": {
            **{f"{ROLES[who][0]}Role": role(who) for who in ROLES},
            **{f"Users{one.capitalize()}": of_users(one) for one in FEATURES},
            "Bucket": bucket(),
            "BucketPolicy": bucket_policy(),
            "Images": repository(),
        },
        "Outputs": outputs(),
    }


class Plain(yaml.SafeDumper):
    """Writes everything in full: CloudFormation knows no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True."""
        return True


def text() -> str:
    """Return the file."""
    return HEAD + yaml.dump(template(), Dumper=Plain, sort_keys=False, width=120)


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
