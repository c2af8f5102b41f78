"""Which extras are installed, and whether their packages fit together."""

from __future__ import annotations

import pytest

from cloudtune.diagnosis.packages import Package, check_packages, lacking
from cloudtune.diagnosis.versions import requirement, satisfies

OWN = (
    "click>=8.1.7",
    'boto3>=1.35; extra == "aws"',
    's3fs>=2025.3; extra == "aws"',
    'boto3>=1.35; extra == "eks"',
    'kubernetes>=31; extra == "eks"',
    'cloudtune[aws,eks]; extra == "all"',
)


def shelf(**packages):
    """Return an environment: version, then requirements, by name."""

    def of(name):
        found = {"cloudtune": ("0.1.0", *OWN), **packages}.get(name)
        return found and Package(version=found[0], needs=tuple(filter(None, map(requirement, found[1:]))))

    return of


def findings(**packages):
    return list(check_packages(shelf(**packages)))


def test_extras_are_listed_with_what_is_missing():
    (only,) = findings(click=("8.2",), boto3=("1.43.0",), s3fs=("2026.9",))
    assert (only.status, only.message) == ("ok", "extras that are installed: aws; not: eks (without kubernetes)")


def test_an_s3fs_of_2020_beside_a_new_boto3_is_a_problem():
    _, problem = findings(click=("8.2",), boto3=("1.44.5",), s3fs=("0.4.2",))
    assert problem.status == "problem"
    assert problem.message == "cloudtune[aws] needs s3fs>=2025.3, and 0.4.2 is installed"
    assert 'pip install --upgrade "cloudtune[aws]"' in problem.hint


def test_packages_that_exclude_each_other_are_found_however_deep():
    _, problem = findings(
        click=("8.2",),
        boto3=("1.44.5", "botocore<1.45,>=1.44.5"),
        s3fs=("2026.9", "aiobotocore<4,>=3.0"),
        aiobotocore=("3.10.0", "botocore<1.43.118,>=1.43.0", 'boto3<1.43.118; extra == "boto3"', "aiohttp (<4)"),
        botocore=("1.44.5",),
        aiohttp=("3.14",),
    )
    assert problem.message == "aiobotocore 3.10.0 needs botocore<1.43.118,>=1.43.0, and 1.44.5 is installed"
    assert problem.where == "botocore"


def test_what_is_not_installed_or_only_for_other_machines_contradicts_nobody():
    assert len(findings(click=("8.2",), boto3=("1.0",))) == 1  # aws is not complete: nobody uses it
    more = {"s3fs": ("2026.9", 'colorama<0.1; sys_platform == "win32"'), "colorama": ("0.4",)}
    assert len(findings(click=("8.2",), boto3=("1.43",), **more)) == 1


def test_what_everything_needs_is_looked_at_too():
    _, problem = findings(click=("7.0",))
    assert problem.message == "cloudtune needs click>=8.1.7, and 7.0 is installed"


def test_packages_of_an_extra_that_are_missing():
    assert lacking("all", shelf(boto3=("1.43",))) == ["s3fs", "kubernetes"]
    assert lacking("aws", lambda _: None) == ()
    (unknown,) = check_packages(lambda _: None)
    assert unknown.status == "unknown"


@pytest.mark.parametrize(
    ("version", "wanted", "answer"),
    [
        ("3.11.7", ">=3.10,<3.14", True),
        ("3.14.0", ">=3.10,<3.14", False),
        ("3.9", ">=3.10", False),
        ("1.2.3", "~=1.2", True),
        ("2.0", "~=1.2", False),
        ("1.3.0", "~=1.2.3", False),
        ("2.13.0+cpu", ">=2.6", True),
        ("1.4.2", "==1.4.*", True),
        ("1.5", "!=1.5", False),
        ("1.5.1", "!=1.5", True),
        ("1.0", "==1", True),
        ("2.0", ">1.9,<=2.0.0", True),
        ("2.0rc1", ">=2.0", True),
        ("2.0rc1", "<2.0", None),
        ("unknown", ">=1", None),
        ("1.0", "===1.0", None),
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_as_pip_compares_them(version, wanted, answer):
    assert satisfies(version, wanted) is answer


def test_plain_comparisons_agree_with_packaging():
    packaging = pytest.importorskip("packaging.specifiers")
    from packaging.version import Version

    versions = ["0.9", "1.0", "1.2", "1.2.3", "1.10", "2.0.0", "2.0.1", "10.1"]
    wanted = ["~=1.2", ">=1.2,<2", "!=1.2.*", "==1.*", "<=1.10", ">1.2", "==2", "~=1.2.3"]
    for version in versions:
        for one in wanted:
            assert satisfies(version, one) is packaging.SpecifierSet(one).contains(Version(version)), (version, one)


def test_requirements_are_read_as_metadata_has_them():
    found = requirement("Hugging_Face.Hub[cli, torch] (>=1.31) ; extra == 'Local'")
    assert (found.name, found.extras, found.versions) == ("hugging-face-hub", ("cli", "torch"), ">=1.31")
    assert (found.extra, found.plain) == ("local", True)
    assert requirement("x; python_version < '3.11'").plain is False
    assert requirement("x @ https://example.com/x.whl") is None
