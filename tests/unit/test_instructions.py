"""Parsing of Dockerfiles. The expected results are those of moby/buildkit's parser tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylocal.planning.instructions import (
    MAX_INSTRUCTIONS,
    MAX_TEXT,
    UNKNOWN,
    Unreadable,
    expand,
    parse_trigger,
    read,
    sources,
    split_flags,
    syntaxes,
)


def keywords(text: str) -> list[list[str]]:
    return [[each.keyword for each in reading.instructions] for reading in read(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN b\n", ["from", "run"]),
        ("FROM a\r\nRUN b \\\r\n  c\r\n", ["from", "run"]),
        ("\ufeffFROM a", ["from"]),
        ("\\\nFROM a\n", ["from"]),
        ("\xa0FROM a\n", ["from"]),
        ("FR\\\nOM a\n", ["from"]),
        ("FROM a\nONBU\u0130LD RUN x\n", ["from", "onbuild"]),
        ("FROM a\nRUN x \\\n  # FROM b\n\n  y\nRUN z", ["from", "run", "run"]),
        ("FROM a\nRUN <<EOF\nFROM b\nEOF\nRUN c\n", ["from", "run", "run"]),
        ("FROM a\nRUN <<-EOF\n\tFROM b\n\tEOF\nRUN c\n", ["from", "run", "run"]),
        ("FROM a\nRUN <<EOF\n EOF\nFROM b\nEOF\nRUN c\n", ["from", "run", "run"]),
        ("FROM a\nCOPY <<x <<y /\n1\nx\n2\ny\nRUN c\n", ["from", "copy", "run"]),
        ("FROM a\nONBUILD RUN <<EOF\nFROM b\nEOF\n", ["from", "onbuild"]),
        ("FROM a\nRUN cat <<<word\nRUN b\n", ["from", "run", "run"]),
        ('FROM a\nRUN ["cat", "<<EOF"]\nRUN b\n', ["from", "run", "run"]),
        ("FROM a\nRUN echo '<<EOF'\nRUN b\n", ["from", "run", "run"]),
        ("# escape=`\nFROM a\nRUN b `\n  c\nCOPY d c:\\\nRUN e\n", ["from", "run", "copy", "run"]),
        ("# syntax=x\n# escape=`\nFROM a\nRUN b `\n  c\n", ["from", "run"]),
        ("# a comment\n# escape=`\nFROM a\nRUN b \\\n  c\n", ["from", "run"]),
    ],
)
def test_a_text_with_one_reading(text: str, expected: list[str]) -> None:
    assert keywords(text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN <<CMD\nFROM b\nCMD\n", [["from", "run"], ["from", "run", "from", "cmd"]]),
        ("FROM a\nRUN <<EOF\nFROM b\nRUN c \\\nEOF\n", [["from", "run"], ["from", "run", "from", "run"]]),
        ("FROM a\nRUN b \\\\\nFROM c\n", [["from", "run", "from"], ["from", "run"]]),
    ],
)
def test_a_text_that_builders_read_differently(text: str, expected: list[list[str]]) -> None:
    assert keywords(text) == expected


def test_a_heredoc_whose_end_is_not_a_plain_word_is_refused() -> None:
    with pytest.raises(Unreadable, match="line 2"):
        read("FROM a\nRUN <<E'O'F\nFROM b\nEOF\n")


@pytest.mark.parametrize(
    ("line", "flags", "rest"),
    [
        ("--from=a /b /c", ["--from=a"], "/b /c"),
        ('--"from=a b" /c', ["--from=a b"], "/c"),
        ("--fr\\om=a\t--chown=1 x", ["--from=a", "--chown=1"], "x"),
        ("-- --from=a", [], " --from=a"),
        ("a --from=b", [], "a --from=b"),
        # the parser treats the second byte of `à` as a space
        ("--chown=à--from=b c", ["--chown=\xc3", "--from=b"], "c"),
        ("\u3000--from=b c", [], "\u3000--from=b c"),
        ("--from=b größe à", ["--from=b"], "größe à"),
    ],
)
def test_flags_are_split_as_the_parser_does(line: str, flags: list[str], rest: str) -> None:
    assert split_flags(line) == (flags, rest)


VALUES = {"X": "x", "EMPTY": "", "LONG_1": "l"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("$X", "x"),
        ("${X}y", "xy"),
        ("a$NONE", "a"),
        ("${NONE:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${X:+d}", "d"),
        ("${NONE:+d}", ""),
        ("${NONE:-${X}/${LONG_1}}", "x/l"),
        ("'$X'", "$X"),
        ('"$X"', "x"),
        ("\\$X", "$X"),
        ("p\"y\"t'h'on", "python"),
        ("$", "$"),
    ],
)
def test_variables_are_put_in(word: str, expected: str) -> None:
    assert expand(word, VALUES) == expected


@pytest.mark.parametrize("word", ["${X", "${X#a}", "${X//a/b}", "${}", "'a", "${NONE:-'}"])
def test_substitutions_that_not_every_builder_knows_are_refused(word: str) -> None:
    with pytest.raises(Unreadable):
        expand(word, VALUES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# syntax=a/b:1\nFROM x", ["a/b:1"]),
        ("#!/x\n#SYNTAX = a\nFROM x", ["a"]),
        ("// syntax=a\nFROM x", ["a"]),
        ('{"syntax": "a"}', ["a"]),
        ("FROM x\n# syntax=a\n", []),
    ],
)
def test_frontends(text: str, expected: list[str]) -> None:
    assert syntaxes(text) == expected


LINES = st.lists(
    st.sampled_from(
        ["FROM a", "RUN b", "RUN c \\", "  d", "# e", "", "RUN <<EOF", "EOF", "COPY <<x <<y /", "x", "y", "\\", "CMD"]
        + ["# escape=`", "RUN f `", "ONBUILD RUN g", "\tEOF", "RUN <<-EOF", "ENV h=\\\\"]
    ),
    max_size=12,
)


@given(LINES)
def test_no_line_belongs_to_two_instructions(lines: list[str]) -> None:
    for reading in read("\n".join(lines)):
        ends = [-1]
        for each in reading.instructions:
            assert ends[-1] < each.first <= each.last <= each.body_end < max(len(lines), 1)
            assert each.text.startswith(each.before_rest)
            assert each.text.rstrip().endswith(each.rest)
            ends.append(each.body_end)


@given(st.text(alphabet="FROMRUN aB\\`\n\r\t$<>'\"{}-=#:x", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        readings = read(text)
    except Unreadable:
        return
    assert readings


@given(st.text(alphabet="ab$ {}'\"\\:-+X", max_size=20))
def test_a_word_without_variables_and_quotes_stays_as_it_is(word: str) -> None:
    if not set(word) & set("$'\"\\"):
        assert expand(word, VALUES) == word


def test_a_trigger_is_an_instruction_of_its_own() -> None:
    trigger = read("ONBUILD COPY --from=a b c")[0].instructions[0].trigger
    assert trigger
    assert (trigger.keyword, trigger.flags, trigger.rest) == ("copy", ["--from=a"], "b c")


def test_a_letter_that_the_parser_splits_in_two_is_refused() -> None:
    with pytest.raises(Unreadable, match="ASCII"):
        split_flags("--chown=\u3140 x")


@pytest.mark.parametrize(
    "trigger", ["COPY \\\n--from=a b c", "# escape=`\nCOPY `\n--from=a b c", "\ufeffCOPY --from=a b c"]
)
def test_a_trigger_of_an_image_is_read_like_a_file(trigger: str) -> None:
    assert [each.flags for each in parse_trigger(trigger)] == [["--from=a"]]


@pytest.mark.parametrize("trigger", ["", "COPY a b\nCOPY --from=a b c", "RUN <<RUN\nCOPY --from=a b c\nRUN"])
def test_a_trigger_that_is_not_one_instruction_is_refused(trigger: str) -> None:
    with pytest.raises(Unreadable):
        parse_trigger(trigger)


@pytest.mark.parametrize("rest", ['["a", "b"]', '["a", "b"] c', '["a","b"]"]'])
def test_words_behind_a_list_are_ignored_as_the_parser_does(rest: str) -> None:
    assert sources(read(f"ADD {rest}")[0].instructions[0]) == ["a"]


@pytest.mark.parametrize("word", ["$U", "${U}", "${U:+a}", "${U+a}", "${U:-a}", "${N:-${U:+a}}"])
def test_an_unknown_value_makes_the_word_unknown(word: str) -> None:
    assert UNKNOWN in expand(word, {"U": UNKNOWN})


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\n" + "#\n" * MAX_TEXT,
        "FROM a\n" + "RUN b\n" * MAX_INSTRUCTIONS,
    ],
)
def test_a_text_beyond_all_measure_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="more than"):
        read(text)


def test_a_value_beyond_all_measure_is_refused() -> None:
    with pytest.raises(Unreadable, match="characters"):
        expand("$X" * 100, {"X": "x" * 1000})
    with pytest.raises(Unreadable, match="inside each other"):
        expand("${N:-" * 3000 + "}" * 3000, {})
