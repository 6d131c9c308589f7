"""What is run to build a package, and what an `.abf.yml` may say."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylocal.packages import recipes
from polylocal.packages.recipes import Code, Target

SHA1 = "0123456789abcdef0123456789abcdef01234567"


def target(kind: str | None = "deb", command: str | None = None, has_network: bool = False) -> Target:
    return Target(kind, command, has_network)


def code(*files: str, has_debian: bool = False, said: str | None = None) -> Code:
    return Code(files, has_debian, said)


def ran(line: str) -> tuple[int, str, str]:
    """What a shell makes of a line: exit code, output, complaints."""
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


# -- by kind ---------------------------------------------------------------------------------------------------------


def test_debian_code_is_built_with_its_own_tool() -> None:
    line = recipes.command(target("deb"), code("Makefile", has_debian=True))
    assert line.startswith("dpkg-buildpackage -us -uc && ")
    assert "$RESULTS_PATH" in line  # it leaves its packages above the code


@pytest.mark.parametrize("kind", ["dnf", "mdv", "rhel", None])
def test_the_one_spec_file_is_built(kind: str | None) -> None:
    line = recipes.command(target(kind), code("hello.spec", "hello.c", "spec"))
    words = shlex.split(line)
    assert words[:2] == ["rpmbuild", "-ba"]
    assert words[-1] == "hello.spec"
    assert "_rpmdir $RESULTS_PATH" in words
    assert "_srcrpmdir $RESULTS_PATH" in words


@pytest.mark.parametrize("file", ["pyproject.toml", "setup.py"])
def test_a_wheel_is_made_with_what_the_image_has_where_there_is_no_network(file: str) -> None:
    without = recipes.command(target("pypi"), code(file))
    assert without == 'pip wheel --no-deps --no-build-isolation -w "$RESULTS_PATH" .'
    with_network = recipes.command(target("pypi", has_network=True), code(file))
    assert with_network == 'pip wheel --no-deps -w "$RESULTS_PATH" .'


@pytest.mark.parametrize(
    ("kind", "files", "why"),
    [
        ("deb", ["debian"], "there is no folder `debian` in the code"),
        ("pypi", ["setup.cfg"], "there is neither pyproject.toml nor setup.py in the code"),
        ("dnf", [], "there must be exactly one .spec file at the top of the code, not 0"),
        ("mdv", ["a.spec", "b.spec"], "there must be exactly one .spec file at the top of the code, not 2"),
        ("rhel", ["a.spec.in"], "there must be exactly one .spec file at the top of the code, not 0"),
    ],
)
def test_what_can_not_be_built_says_so_and_fails(kind: str, files: list[str], why: str) -> None:
    assert ran(recipes.command(target(kind), code(*files))) == (1, "", f"nothing can be built: {why}\n")


@pytest.mark.parametrize("name", ["a b.spec", "$(touch x).spec", "';exit 0;'.spec", "--help.spec", "é\n.spec"])
def test_the_name_of_a_spec_file_is_one_word_whatever_it_is(name: str) -> None:
    line = recipes.command(target("dnf"), code(name))
    assert shlex.split(line)[-1] == name


def test_every_kind_has_an_image_and_a_recipe() -> None:
    assert set(recipes.IMAGES) == {"deb", "dnf", "mdv", "rhel", "pypi"}
    full = code("x.spec", "setup.py", has_debian=True)
    lines = {kind: recipes.command(target(kind), full) for kind in recipes.IMAGES}
    assert not [line for line in lines.values() if "nothing can be built" in line]
    assert lines["dnf"] == lines["mdv"] == lines["rhel"]


# -- who is heard ----------------------------------------------------------------------------------------------------


def test_the_code_is_heard_before_the_platform_and_that_before_the_default() -> None:
    own = code("x.spec", said="build: {command: make mine}")
    assert recipes.command(target("dnf", "make theirs"), own) == "make mine"
    assert recipes.command(target("dnf", "make theirs"), code("x.spec")) == "make theirs"
    assert recipes.command(target("deb", "make theirs"), code()) == "make theirs"
    assert recipes.command(target("dnf"), code("x.spec")).startswith("rpmbuild")


@pytest.mark.parametrize(
    "said", [None, "", "# nothing", "---", "build:", "build: {}", "sources: {}", "other: [1]", "{}"]
)
def test_a_file_that_says_nothing_of_the_build_changes_nothing(said: str | None) -> None:
    assert recipes.command(target(command="make theirs"), code(said=said)) == "make theirs"
    assert recipes.sources(said) == {}


def test_a_command_of_several_lines_is_kept_as_it_is() -> None:
    said = "build:\n  command: |\n    make\n    make install\n"
    assert recipes.command(target(), code(said=said)) == "make\nmake install\n"


# -- an .abf.yml that is wrong ---------------------------------------------------------------------------------------

WRONG = {
    "a: [": ".abf.yml is no YAML",
    "a: b: c": ".abf.yml is no YAML",
    "\tbuild: x": ".abf.yml is no YAML",
    "!!python/object/apply:os.system [true]": ".abf.yml is no YAML",
    "build: \x00": ".abf.yml is no YAML",
    "[\n" * 5000: ".abf.yml is no YAML",
    "[1, 2]": ".abf.yml must be a mapping",
    "just words": ".abf.yml must be a mapping",
    "17": ".abf.yml must be a mapping",
    "build: make": "`build` must have a `command` that is a text",
    "build: [make]": "`build` must have a `command` that is a text",
    "build: {command: [make, all]}": "`build` must have a `command` that is a text",
    "build: {command: 17}": "`build` must have a `command` that is a text",
    "build: {command: true}": "`build` must have a `command` that is a text",
    "build: {command: }": "`build` must have a `command` that is a text",
    f"sources: [{SHA1}]": "`sources` must map plain file names",
    f"sources: {SHA1}": "`sources` must map plain file names",
    f"sources: {{a/b: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{/etc/passwd: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{..: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{.: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{'': {SHA1}}}": "`sources` must map plain file names",
    f'sources: {{"a\\0b": {SHA1}}}': "`sources` must map plain file names",
    f"sources: {{17: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{{'x' * 256}: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{{'é' * 128}: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{null: {SHA1}}}": "`sources` must map plain file names",
    f"sources: {{a: {SHA1[1:]}}}": "`sources` must map plain file names",
    f"sources: {{a: {SHA1}0}}": "`sources` must map plain file names",
    f"sources: {{a: {SHA1.upper()}}}": "`sources` must map plain file names",
    f"sources: {{a: ../../{SHA1[6:]}}}": "`sources` must map plain file names",
    "sources: {a: 17}": "`sources` must map plain file names",
    "sources: {a: }": "`sources` must map plain file names",
    f"sources: {{good: {SHA1}, bad: no}}": "`sources` must map plain file names",
}


@pytest.mark.parametrize("said", WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_in_it_is_said_where_the_build_would_run(said: str) -> None:
    exit_code, _, words = ran(recipes.command(target(command="exit 0"), code("x.spec", said=said)))
    assert exit_code == 1
    assert words.startswith("nothing can be built: .abf.yml")
    assert WRONG[said] in words
    assert words.count("\n") == 1
    assert recipes.sources(said) == {}


def test_files_of_the_store_are_named_by_plain_names() -> None:
    said = f"sources:\n  hello-1.0.tar.gz: {SHA1}\n  ..hidden: {'f' * 40}\n  a b: '{'0' * 40}'\n"
    assert recipes.sources(said) == {"hello-1.0.tar.gz": SHA1, "..hidden": "f" * 40, "a b": "0" * 40}


def test_a_name_may_be_as_long_as_a_file_system_takes() -> None:
    for name in ("x" * 255, "é" * 127 + "x"):
        assert recipes.sources(f"sources: {{{name}: {SHA1}}}") == {name: SHA1}


# a sha1 of digits alone is a number to YAML, and ABF's own tool writes it without quotes
def test_a_sum_that_reads_as_a_number_needs_quotes_and_is_said_to_be_wrong_without() -> None:
    assert recipes.sources(f"sources: {{a: {'1' * 40}}}") == {}
    assert "sha1 sums of 40 hex digits" in recipes.command(target(), code(said=f"sources: {{a: {'1' * 40}}}"))


@settings(max_examples=50)
@given(st.text(max_size=100))
def test_no_text_is_too_odd(said: str) -> None:
    line = recipes.command(target(command="make"), code(said=said))
    assert line == "make" or line.startswith("printf ")
    assert recipes.sources(said) == {}


@settings(max_examples=100)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_a_complaint_is_only_ever_printed(words: str) -> None:
    said = f"build: {{{words}"
    line = recipes.command(target(), code(said=said))
    parsed = shlex.split(line, posix=True)
    assert parsed[:2] == ["printf", "%s\\n"]
    assert parsed[3:] == [">&2;", "exit", "1"]
