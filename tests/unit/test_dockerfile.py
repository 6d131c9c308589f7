"""The rendered Dockerfile is the documented one, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from polylocal.planning.dockerfile import (
    Base,
    downloads,
    platform_arguments,
    references,
    render,
    setup_file,
    with_base_images,
    with_label,
    with_secrets,
)
from polylocal.planning.instructions import Unreadable
from polylocal.polyaxonfile import Build

LOCALE = "en_US.UTF-8"


def base_images(text: str, arguments: Mapping[str, str] | None = None) -> list[str]:
    """The images that the stages of a Dockerfile start from."""
    return list(dict.fromkeys(found.image for found in references(text, arguments or {}) if found.is_base))


def rendered(
    files: tuple[str, ...] = (), lang_env: str = LOCALE, nvidia_bin: str = "", user: str = "", **b: Any
) -> str:
    return render(Build(**b), files, lang_env, nvidia_bin, user)


SEED = {"image": "tensorflow/tensorflow:1.4.1-py3", "build_steps": ["pip3 install --no-cache-dir -U polyaxon-client"]}
SEED_TEXT = (
    "\nFROM tensorflow/tensorflow:1.4.1-py3\n\nENV LC_ALL en_US.UTF-8\nENV LANG en_US.UTF-8\nENV LANGUAGE en_US.UTF-8\n"
    "# Use bash as default shell, rather than sh\nENV SHELL /bin/bash\n\nWORKDIR /code\n\n"
    "RUN pip3 install --no-cache-dir -U polyaxon-client\nCOPY build /code\n"
)


def test_the_build_of_the_documents() -> None:
    assert rendered(**SEED) == SEED_TEXT


def test_without_a_locale() -> None:
    expected = """
FROM tensorflow/tensorflow:1.4.1-py3

# Use bash as default shell, rather than sh
ENV SHELL /bin/bash

WORKDIR /code

RUN pip3 install --no-cache-dir -U polyaxon-client
COPY build /code
"""
    assert rendered(lang_env="", **SEED) == expected


def test_the_builds_own_locale_comes_first() -> None:
    assert render(Build(**SEED, lang_env=LOCALE), (), "") == SEED_TEXT
    assert render(Build(**SEED, lang_env=""), (), LOCALE) == rendered(lang_env="", **SEED)


def test_the_least_build() -> None:
    expected = """
FROM python:3.6

ENV LC_ALL en_US.UTF-8
ENV LANG en_US.UTF-8
ENV LANGUAGE en_US.UTF-8
# Use bash as default shell, rather than sh
ENV SHELL /bin/bash

WORKDIR /code

COPY build /code
"""
    assert rendered(image="python:3.6") == expected


ENV_VARS = [["FOO", "bar"], ["N", 1], ["B", True], ["E", "${PATH}:/x"]]
STEPS = ["apt-get update && apt-get install -y git", "pip install -r requirements.txt"]


def test_env_vars_and_steps() -> None:
    expected = """
FROM ubuntu:16.04

ENV LC_ALL en_US.UTF-8
ENV LANG en_US.UTF-8
ENV LANGUAGE en_US.UTF-8
# Use bash as default shell, rather than sh
ENV SHELL /bin/bash

ENV FOO bar
ENV N 1
ENV B True
ENV E ${PATH}:/x
WORKDIR /code

RUN apt-get update && apt-get install -y git
RUN pip install -r requirements.txt
COPY build /code
"""
    assert rendered(image="ubuntu:16.04", env_vars=ENV_VARS, build_steps=STEPS) == expected


def test_requirements_are_copied_in_before_the_first_step() -> None:
    without = rendered(image="ubuntu:16.04", env_vars=ENV_VARS, build_steps=STEPS)
    expected = without.replace("RUN apt-get", "COPY build/requirements.txt /code\nRUN apt-get")
    assert rendered(("requirements.txt",), image="ubuntu:16.04", env_vars=ENV_VARS, build_steps=STEPS) == expected


def test_requirements_conda_and_setup_files() -> None:
    expected = """
FROM continuumio/miniconda3:4.5.4

# Use bash as default shell, rather than sh
ENV SHELL /bin/bash

WORKDIR /code

COPY build/polyaxon_requirements.txt /code
COPY build/conda_env.yml /code
COPY build/polyaxon_setup.sh /code
RUN ./polyaxon_setup.sh
RUN pip install -r polyaxon_requirements.txt
COPY build /code
"""
    files = ("polyaxon_setup.sh", "conda_env.yml", "polyaxon_requirements.txt")
    steps = ["./polyaxon_setup.sh", "pip install -r polyaxon_requirements.txt"]
    assert rendered(files, lang_env="", image="continuumio/miniconda3:4.5.4", build_steps=steps) == expected


def test_a_user_in_place_of_root() -> None:
    expected = """
FROM python:3.6

ENV LC_ALL en_US.UTF-8
ENV LANG en_US.UTF-8
ENV LANGUAGE en_US.UTF-8
# Use bash as default shell, rather than sh
ENV SHELL /bin/bash

# Drop root user and use Polyaxon user
RUN groupadd -g 2222 -r polyaxon && useradd -r -m -g polyaxon -u 2222 polyaxon
WORKDIR /code

RUN pip install x
COPY build /code
"""
    assert rendered(user="2222:2222", image="python:3.6", build_steps=["pip install x"]) == expected


def test_user_and_group_stand_in_their_own_places() -> None:
    assert "groupadd -g 7 -r polyaxon && useradd -r -m -g polyaxon -u 5 " in rendered(user="5:7", image="a")


def test_the_nvidia_folder() -> None:
    expected = """
FROM tensorflow/tensorflow:1.4.1-gpu-py3

ENV LC_ALL en_US.UTF-8
ENV LANG en_US.UTF-8
ENV LANGUAGE en_US.UTF-8
# Use bash as default shell, rather than sh
ENV SHELL /bin/bash

# Update with nvidia bin
ENV PATH="${PATH}:/usr/local/nvidia/bin"
WORKDIR /code

COPY build /code
"""
    assert rendered(nvidia_bin="/usr/local/nvidia/bin", image="tensorflow/tensorflow:1.4.1-gpu-py3") == expected


@pytest.mark.parametrize(
    ("files", "copied"),
    [
        (["requirements.txt", "polyaxon_requirements.txt"], "polyaxon_requirements.txt"),
        (["requirements.txt"], "requirements.txt"),
        (["conda_env.yml", "conda_env.yaml", "polyaxon_conda_env.yml"], "polyaxon_conda_env.yml"),
        (["conda_env.yml", "conda_env.yaml"], "conda_env.yaml"),
        (["setup.sh", "polyaxon_setup.sh"], "polyaxon_setup.sh"),
    ],
)
def test_the_first_of_the_known_files_is_copied(files: list[str], copied: str) -> None:
    lines = rendered(tuple(files), image="a").splitlines()
    assert [line for line in lines if line.startswith("COPY build/")] == [f"COPY build/{copied} /code"]


def test_the_setup_file_is_found_by_its_name() -> None:
    assert setup_file({"setup.sh", "polyaxon_setup.sh"}) == "polyaxon_setup.sh"
    assert setup_file({"a.sh"}) is None


# -- base images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SEED_TEXT, ["tensorflow/tensorflow:1.4.1-py3"]),
        ("from python:3.6\nRUN x\n", ["python:3.6"]),
        ("FROM scratch\nCOPY a /\n", []),
        ("FROM golang AS builder\nFROM alpine\nCOPY --from=builder a /\n", ["golang", "alpine"]),
        ("FROM golang as Builder\nFROM builder\n", ["golang"]),
        ("FROM a\nFROM a\n", ["a"]),
        ("FROM --platform=linux/amd64 a:1 AS x\n", ["a:1"]),
        ("FROM --platform=$BUILDPLATFORM a:1\n", ["a:1"]),
        ("ARG TAG=3\nFROM python:${TAG}\n", ["python:3"]),
        ("  FROM\ta@sha256:0123\r\n", ["a@sha256:0123"]),
        ("# FROM a\nFROM b\n", ["b"]),
        ("FROMAGE a\n", []),
        ("ARG X=${Y#v}\nFROM a\n", ["a"]),
        ("ARG X\nFROM a$X\n", ["a"]),
        ("ARG X=a\nARG X=b\nFROM $X\n", ["b"]),
        ("FROM a\nARG X=c\nFROM ${X:-b}\n", ["a", "b"]),
        ('FROM "a"\n', ["a"]),
        ("", []),
    ],
)
def test_base_images_of(text: str, found: list[str]) -> None:
    assert base_images(text) == found


@pytest.mark.parametrize(
    "step",
    ['RUN psql -c "select * \\\n  FROM users"', "RUN a \\\n  # a comment\n  from b", "RUN <<EOF\nFROM users\nEOF"],
)
def test_a_from_inside_another_instruction_is_no_base_image(step: str) -> None:
    assert base_images(f"FROM a\n{step}\n") == ["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN a\n", "FROM local\nRUN a\n"),
        ("from  --platform=x a AS b", "from  --platform=x local AS b"),
        ("FROM ab\n", "FROM ab\n"),
        ("FROM a AS b\nFROM b\n", "FROM local AS b\nFROM b\n"),
    ],
)
def test_base_images_are_replaced(text: str, expected: str) -> None:
    assert with_base_images(text, {"a": "local"}) == expected


def test_a_stage_with_the_name_of_its_image_is_not_replaced() -> None:
    text = "FROM a AS a\nRUN x\nFROM a\n"
    assert with_base_images(text, {"a": "local"}) == "FROM local AS a\nRUN x\nFROM a\n"


def test_replacing_nothing_changes_no_byte() -> None:
    assert with_base_images(SEED_TEXT, {}) == SEED_TEXT


def test_each_stage_has_the_label_and_nothing_else_changes() -> None:
    text = "ARG v=1\nFROM a AS b\nRUN echo \\\n  FROM c\nFROM scratch\nCOPY --from=b / /\n"
    labelled = with_label(text, "x.y", "1")
    assert labelled == (
        "ARG v=1\nFROM a AS b\nLABEL x.y=1\nRUN echo \\\n  FROM c\nFROM scratch\nLABEL x.y=1\nCOPY --from=b / /\n"
    )
    assert labelled.replace("LABEL x.y=1\n", "") == text


def test_secrets_are_set_in_each_step_that_a_shell_reads() -> None:
    text = 'FROM a\nRUN pip install x\nRUN ["pip"]\nRUN --network=none make\nENV RUN=1\n'
    take = 'eval "$FTP_PROXY"; unset FTP_PROXY; '
    assert with_secrets(text) == (
        f'FROM a\nRUN {take}pip install x\nRUN ["pip"]\nRUN --network=none {take}make\nENV RUN=1\n'
    )


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("ARG X=a\nFROM \\\n  $X AS y\nRUN z\n", "FROM   local AS y\n\nRUN z\n"),
        ("FROM b\nCOPY --chown=1 --from=a x y\n", "FROM b\nCOPY --chown=1 --from=local x y\n"),
        (
            "FROM b\nRUN --mount=type=bind,from=a,target=/a from=a\n",
            "FROM b\nRUN --mount=type=bind,from=local,target=/a from=a\n",
        ),
    ],
)
def test_an_image_is_replaced_wherever_it_is_named(text: str, end: str) -> None:
    assert with_base_images(text, {"a": "local"}).endswith(end)


@pytest.mark.parametrize(
    "text",
    [
        "ARG X=${Y#v}\nFROM $X\n",
        "FROM a\nCOPY --from=$X a b\n",
        "FROM a\nRUN <<CMD\nFROM b\nCMD\n",
        # variables that the engine's client sets from its own settings, or for secrets
        "ARG FTP_PROXY\nFROM ${FTP_PROXY:+b}\n",
        "ARG https_proxy\nARG X=${https_proxy:+b}\nARG X=${X:-scratch}\nFROM $X\n",
        "ARG X=line\nARG FTP_PROXY=a\nFROM $FTP_PROXY\n",
        "ARG X\nFROM $X\n",
    ],
)
def test_text_that_builders_read_differently_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="line|substitution"):
        references(text)


def test_variables_of_the_engines_client_are_refused() -> None:
    with pytest.raises(Unreadable, match="line 3"):
        downloads("FROM a\nARG HTTP_PROXY\nADD ${HTTP_PROXY:+http://a/b} /\n", {}, {})


def test_image_names_in_copies_with_lists_and_in_triggers_over_lines() -> None:
    base = Base(triggers=["ADD \\\nhttp://b/c /"])
    assert downloads('FROM x\nADD ["http://a/b", "/d"] c\n', {}, {"x": base}) == ["b", "a"]


def test_values_that_double_take_no_memory() -> None:
    text = "ARG A=aaaaaaaa\n" + "ARG A=$A$A\n" * 60 + "FROM b\n"
    with pytest.raises(Unreadable, match="characters"):
        references(text)


def test_triggers_of_stages_are_bounded() -> None:
    text = "FROM a AS s\n" + "ONBUILD RUN b\n" * 100 + "FROM s\n" * 100
    with pytest.raises(Unreadable, match="triggers"):
        references(text)


def test_a_number_that_is_too_large_for_a_stage_is_a_name() -> None:
    digits = "9" * 20
    assert [each.image for each in references(f"FROM a\nCOPY --from=0 b c\nCOPY --from={digits} b c\n")] == [
        "a",
        digits,
    ]


def test_base_images_are_named_without_variables() -> None:
    text = "ARG X=scratch Y=b\nFROM $X AS b\nFROM ${Y}\n"
    assert with_base_images(text, {"b": "c"}) == "ARG X=scratch Y=b\nFROM scratch AS b\nFROM b\n"


def test_variables_that_buildkit_sets_are_substituted() -> None:
    arguments = platform_arguments("linux/arm64/v8")
    assert base_images("FROM a:$TARGETARCH-$BUILDVARIANT\n", arguments) == ["a:arm64-v8"]
    assert base_images("FROM a:${TARGETARCH:-x}\n") == ["a:x"]
