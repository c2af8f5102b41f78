"""Ignore rules against git itself: generated patterns over generated trees."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloudtune.workspace.ignore import first_verdict, lift, parse_rules
from cloudtune.workspace.tree import list_tree

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")

NAMES = [b"a", b"b", b"ab", b"a.b", b"aB", b"A", b"-", b"]", b"[", b"^", b" ", b"a ", b"\\", b"*", b"!", b"#a", b"a\nb"]
NAMES += [b"\xc3\xa9", b"\xff", b"0"]
FOLDERS = [b"", b"d", b"d/a", b"d/e", b"d/e/a", b"x", b"x/d", b"aba"]
PIECES = [b"*", b"**", b"/", b"a", b"b", b"d", b"e", b"x", b"A", b"?", b"[", b"]", b"!", b"^", b"-", b":", b"\\", b" "]
PIECES += [
    b"[ab]",
    b"[!a]",
    b"[a-z]",
    b"[A-Z]",
    b"[[:alpha:]]",
    b"[[:upper:]]",
    b"[[:space:]]",
    b"[[:punct:]]",
    b"[]-]",
]
PIECES += [
    b"/**/",
    b"**/",
    b"/**",
    b"/*",
    b"#",
    b"\r",
    b"\t",
    b"\0",
    b"\n",
    b"\n!",
    b"\n/",
    b"\xc3",
    b"\xff",
    b"\xef\xbb\xbf",
]

rule_files = st.lists(st.sampled_from(PIECES), min_size=1, max_size=10).map(b"".join)
paths = st.builds(
    lambda folder, name: folder + b"/" + name if folder else name, st.sampled_from(FOLDERS), st.sampled_from(NAMES)
)
trees = st.sets(paths, min_size=3, max_size=14)


def git(folder: Path, *words: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["git", "-C", folder, *words], input=stdin, capture_output=True, check=True)
    return done.stdout


def listed(output: bytes) -> set[bytes]:
    return set(filter(None, output.split(b"\0")))


def grow(root: Path, files: set[bytes], contents: Mapping[bytes, bytes] | None = None) -> None:
    """Make the files; a path that is already a folder, or below a file, is passed over."""
    for path in sorted(files):
        target = Path(os.fsdecode(os.fsencode(root) + b"/" + path))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((contents or {}).get(path, b""))
        except (IsADirectoryError, NotADirectoryError, FileExistsError):
            continue


@contextmanager
def repository() -> Iterator[Path]:
    """Yield an empty repository; making one from scratch would take most of the test's time."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / ".git/info").mkdir(parents=True)
        for folder in ("objects", "refs"):
            (root / ".git" / folder).mkdir()
        (root / ".git/HEAD").write_text("ref: refs/heads/main\n")
        (root / ".git/config").write_text("[core]\n\trepositoryformatversion = 0\n")
        yield root


def configure(root: Path, line: str) -> None:
    with (root / ".git/config").open("a") as file:
        file.write(f"\t{line}\n")


def kept(root: Path) -> set[bytes]:
    tree = list_tree(root.resolve())
    assert not tree.faults
    return {os.fsencode(path) for path in (*tree.files, *tree.links)}


@pytest.fixture(autouse=True)
def own_git_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.delenv("GIT_DIR", raising=False)


@needs_git
@settings(deadline=None, max_examples=200)
@given(files=trees, rules=rule_files, deeper=rule_files, below=st.sampled_from(FOLDERS), ignore_case=st.booleans())
@example({b"foox", b"foo/y/x", b"foo/x"}, b"foo**/x", b"", b"d", False)  # a literal prefix is matched apart
@example({b"\xc3\xa9.py", b"e.py"}, b"?.py", b"", b"d", False)  # bytes, not characters
@example({b"a\t", b"a"}, b"a\t", b"", b"d", False)  # only spaces are trimmed
@example({b"d/a", b"d/e/a", b"x"}, b"*\n!d/", b"!a", b"d", False)  # the folder came back, what lies in it must, too
@example({b"d/e/a", b"d/a"}, b"d/**\n!d/e\n!d/e/a", b"", b"x", False)
@example({b"a\\", b"a"}, b"a\\", b"", b"d", False)  # an escape of nothing matches nothing
def test_an_untracked_tree_is_listed_as_git_lists_it(
    files: set[bytes], rules: bytes, deeper: bytes, below: bytes, ignore_case: bool
) -> None:
    with repository() as root:
        configure(root, f"ignoreCase = {str(ignore_case).lower()}")
        inner = below + b"/.gitignore" if below else b".gitignore"
        grow(root, {*files, inner, b".gitignore"}, {inner: deeper, b".gitignore": rules})
        assert kept(root) == listed(git(root, "ls-files", "-z", "--others", "--exclude-standard"))


@needs_git
@settings(deadline=None, max_examples=80)
@given(files=trees, rules=rule_files, private=rule_files, everywhere=rule_files, data=st.data())
def test_tracked_files_and_rules_outside_the_tree_count_as_they_do_for_git(
    files: set[bytes], rules: bytes, private: bytes, everywhere: bytes, data: st.DataObject
) -> None:
    with repository() as root, tempfile.TemporaryDirectory() as elsewhere:
        grow(root, {*files, b".gitignore"}, {b".gitignore": rules})
        (root / ".git/info/exclude").write_bytes(private)
        (Path(elsewhere) / "ignored").write_bytes(everywhere)
        configure(root, f"excludesFile = {elsewhere}/ignored")
        there = sorted(path for path in files if Path(os.fsdecode(os.fsencode(root) + b"/" + path)).is_file())
        tracked = data.draw(st.sets(st.sampled_from(there))) if there else set()
        git(root, "update-index", "--add", "-z", "--stdin", stdin=b"\0".join(sorted(tracked)))
        expected = listed(git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"))
        assert kept(root) == expected
        if (root / "d").is_dir():
            below = listed(git(root / "d", "ls-files", "-z", "--cached", "--others", "--exclude-standard"))
            if not first_verdict_of_folder(root, b"d"):
                assert kept(root / "d") == below


def first_verdict_of_folder(root: Path, folder: bytes) -> bool:
    asked = ["git", "-C", root, "check-ignore", "-q", "--no-index", "-z", "--stdin"]
    return subprocess.run(asked, input=folder, check=False).returncode == 0


@needs_git
@settings(deadline=None, max_examples=60)
@given(files=trees, rules=rule_files)
def test_our_own_ignore_file_has_gits_syntax_and_leaves_out_tracked_files(files: set[bytes], rules: bytes) -> None:
    with repository() as root:
        grow(
            root,
            {*files, b"d/.cloudtuneignore", b".cloudtuneignore"},
            {b".cloudtuneignore": rules, b"d/.cloudtuneignore": b"/e\n!a"},
        )
        expected = listed(git(root, "ls-files", "-z", "--others", "--exclude-per-directory=.cloudtuneignore"))
        assert kept(root) == expected
        git(root, "add", "--force", "--all")
        assert kept(root) == expected


@needs_git
@settings(deadline=None, max_examples=60)
@given(files=trees, rules=rule_files, own=rule_files.filter(lambda text: b"!" not in text))
def test_both_kinds_of_rules_leave_out_together(files: set[bytes], rules: bytes, own: bytes) -> None:
    with repository() as root:
        grow(root, {*files, b".gitignore", b".cloudtuneignore"}, {b".gitignore": rules, b".cloudtuneignore": own})
        theirs = listed(git(root, "ls-files", "-z", "--others", "--exclude-standard"))
        ours = listed(git(root, "ls-files", "-z", "--others", "--exclude-per-directory=.cloudtuneignore"))
        assert kept(root) == theirs & ours


TRICKY = [
    b"[^a]", b"[!a]", b"[]-]", b"[a-]", b"[-a]", b"[a-b-d]", b"[b-a]", b"[\\]]", b"[a\\-b]", b"[\\a-b]", b"[a-\\b]", b"[[]", b"[[:]", b"[[:a]",
    b"[[:alpha]", b"[[:alpha:]", b"[[:nope:]]", b"[[:digit:][:space:]]", b"[![:alpha:]]", b"[[:alpha:]-z]", b"[", b"[]", b"[!]", b"[a",
    b"[A-Z]", b"[a-z]B", b"[[:upper:]]", b"[[:lower:]]B", b"A", b"\\A", b"a[B]", b"D/", b"d/A", b"*B",
    b"d/**\\/a", b"d**/a", b"d/**a", b"**/a", b"/**/a", b"d/**/", b"d/**", b"/**", b"**", b"***", b"d/***/a", b"**d/a", b"*/a", b"d*a", b"d?a", b"d[/]a",
    b"/a", b"//a", b"d//a", b"/", b"//", b"!", b"!/", b"a/", b"d/", b"d//", b"/d/e/", b"\\/a", b"a\\", b"a\\/", b"d\\/a",
    b"a ", b"a  ", b"a\\ ", b"a\\  ", b"\\ ", b" ", b"a\t", b"a\r", b"a\r\nb\r\n", b"\r\n", b"#a", b"\\#a", b"!#a", b"*\n!a", b"\\!", b"\\!a",
    b"*\n!d/", b"*\n!*/", b"*\n!d\n!d/*", b"d\n!d/a", b"d/*\n!d/e\nd/e/*\n!d/e/a", b"\xef\xbb\xbfa", b"\n\xef\xbb\xbfa", b"a\0b", b"\0a", b"?", b"??", b"\xc3?", b"[\xc3]*",
    b"\\*", b"a\\\nb", b"*.*", b".*", b"*\\", b"?\\", b"d/e/../a", b"./a", b"a*b*", b"*a*b",
]  # fmt: skip


@needs_git
@pytest.mark.parametrize("ignore_case", [False, True])
def test_patterns_that_are_read_wrongly_elsewhere(ignore_case: bool) -> None:
    names = [name for name in NAMES if not ignore_case or name.lower() == name]
    with repository() as root:
        configure(root, f"ignoreCase = {str(ignore_case).lower()}")
        upper = {b"AB", b"Q", b"d/Q/B"} if ignore_case else set()
        grow(
            root,
            {name for name in names if name != b"d"} | {b"d/" + name for name in names} | {b"d/e/a", b"d/e/da"} | upper,
        )
        grow(root, {b"da", b"dxa", b"d/xa", b".x", b"d/f/e/a", b"d/f/a/x"})
        wrong = {}
        for rules in TRICKY:
            (root / ".gitignore").write_bytes(rules)
            found, expected = kept(root), listed(git(root, "ls-files", "-z", "--others", "--exclude-standard"))
            if found != expected:
                wrong[rules] = (found - expected, expected - found)
        assert not wrong


@needs_git
def test_below_an_ignored_folder_only_tracked_files_travel_however_deep() -> None:
    with repository() as root:
        grow(root, {b"d/e/a", b"d/e/b", b"d/e/x/y", b"d/c", b".gitignore"}, {b".gitignore": b"d"})
        git(root, "update-index", "--add", "d/e/a")
        assert kept(root) == {b"d/e/a", b".gitignore"}


@needs_git
def test_the_repositorys_own_excludes_beat_those_of_the_user() -> None:
    with repository() as root:
        grow(root, {b"a", b"b", b".users"}, {b".users": b"a\nb\n.users"})
        (root / ".git/info/exclude").write_bytes(b"!a\n")
        configure(root, "excludesFile = .users")
        assert kept(root) == {b"a"} == listed(git(root, "ls-files", "-z", "--others", "--exclude-standard"))


@needs_git
@pytest.mark.parametrize(
    "name",
    [
        "alnum",
        "alpha",
        "blank",
        "cntrl",
        "digit",
        "graph",
        "lower",
        "print",
        "punct",
        "space",
        "upper",
        "xdigit",
        "word",
    ],
)
def test_named_classes_hold_the_bytes_that_git_says(name: str) -> None:
    rules = b"f[[:%s:]]" % name.encode()
    names = [b"f" + bytes([byte]) for byte in range(1, 256) if byte != ord("/")]
    with repository() as root:
        (root / ".gitignore").write_bytes(rules)
        asked = ["git", "-C", root, "check-ignore", "-z", "--stdin", "--no-index"]
        said = subprocess.run(asked, input=b"\0".join(names), capture_output=True, check=False).stdout
    parsed = parse_rules(rules)
    assert {each for each in names if parsed.verdict(each, folder=False)} == listed(said)


def test_the_last_line_that_speaks_decides_and_silence_is_told_from_a_yes() -> None:
    rules = parse_rules(b"*.bin\n!keep.bin\n")
    assert rules.verdict(b"a/x.bin", folder=False) is True
    assert rules.verdict(b"keep.bin", folder=False) is False
    assert rules.verdict(b"a.py", folder=False) is None


def test_rules_of_a_deeper_file_beat_those_of_a_higher_one() -> None:
    top, deep = parse_rules(b"*.bin"), parse_rules(b"!*.bin", base=b"data/")
    assert first_verdict((deep, top), b"data/x.bin", folder=False) is False
    assert first_verdict((top,), b"x.bin", folder=False) is True
    assert first_verdict((), b"x.bin", folder=False) is None


def test_lifting_takes_away_what_leaves_a_folder_out_and_nothing_else() -> None:
    rules = (parse_rules(b"*.log\nbuild/\n*"),)
    lifted = lift(rules, b"build")
    assert first_verdict(lifted, b"build", folder=True) is None
    assert first_verdict(lifted, b"build/x.log", folder=False) is True
    assert first_verdict(lifted, b"build/x.py", folder=False) is None
    back = (parse_rules(b"*\n!build"),)
    assert lift(back, b"build") == back
