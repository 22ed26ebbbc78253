"""Settings are checked when made, and the command line and the JSON say the same."""

import argparse
import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relagent.runs.config import (
    Config,
    ConfigError,
    ConfigKeyError,
    add_arguments,
    from_arguments,
    from_json,
    given_arguments,
    names_of,
    option,
    to_json,
)


@dataclass(frozen=True)
class Example(Config):
    env: str = option(help="Environment, 100% of it.")
    total_steps: int = option(5_000_000, "Steps.", flag="--steps", role="budget")
    learning_rate: float = option(5e-4, "Step size.")
    memory: Literal["rel", "mem"] = option("rel", "Memory.")
    combine: Literal["sum", "mean"] | None = option(None, "How.")
    use_film: bool = option(True, "Condition on the text.")
    rho: int | None = option(5, "Relevant states; none for no limit.")
    sizes: tuple[int, ...] = option((5, 6), "Sizes.")
    parts: tuple[str, ...] | None = option(("a",), "Parts; none for all.")
    size: int | None = option(None, "Units.", default_is="by memory")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.total_steps < 1:
            raise ConfigError("total_steps", self.total_steps, "it must be at least 1")


def parse(*words: str) -> Example:
    parser = argparse.ArgumentParser(prog="x")
    add_arguments(parser, Example)
    return from_arguments(Example, parser.parse_args(words))


def test_the_command_line_gives_the_configuration() -> None:
    assert parse("--env", "A") == Example(env="A")
    words = "--env A --steps 7 --learning-rate 1 --memory mem --combine sum --no-use-film"
    expected = Example("A", 7, 1.0, "mem", "sum", False, None, ())
    assert parse(*words.split(), "--rho", "none", "--sizes") == expected
    assert parse("--env", "A", "--sizes", "8", "16").sizes == (8, 16)
    assert parse("--env", "A", "--parts", "b", "c").parts == ("b", "c")
    assert parse("--env", "A", "--parts", "none").parts is None


def test_what_the_command_line_names_is_as_the_fields_hold_it() -> None:
    """So a word that repeats a run's setting is no change when that is resumed."""
    parser = argparse.ArgumentParser(prog="x")
    add_arguments(parser, Example)
    words = ["--memory", "rel", "--sizes", "8", "--parts", "none"]
    given = given_arguments(Example, parser.parse_args(words))
    assert given == {"memory": "rel", "sizes": (8,), "parts": None}


def test_what_is_needed_and_missing_is_said() -> None:
    with pytest.raises(ConfigKeyError, match="--env is needed: Environment"):
        parse()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--steps", "x"], "invalid int value: 'x'"),
        (["--rho", "1.5"], "invalid int value: '1.5'"),
        (["--memory", "gru"], "invalid choice: 'gru'"),
        (["--stepz", "3"], "unrecognized arguments"),
    ],
)
def test_wrong_words(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--env", "A", *words)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_help_names_every_flag_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--env ENV Environment, 100% of it.",
        "--steps N Steps. (default: 5000000)",
        "--learning-rate X Step size. (default: 0.0005)",
        "--memory {rel,mem} Memory. (default: rel)",
        "--use-film, --no-use-film Condition on the text. (default: True)",
        "(default: 5 6)",
        "How. (default: none)",
        "--size N Units. (default: by memory)",
    ):
        assert part in text
    assert text.count("(default") == 9


def test_a_command_may_tell_of_other_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Example, {"rho": "50% here", "size": "8"})
    parser.print_help()
    text = " ".join(capsys.readouterr().out.split())
    assert "none for no limit. (default: 50% here)" in text
    assert "Units. (default: 8)" in text
    assert "Steps. (default: 5000000)" in text


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("env", 3, "a text"),
        ("total_steps", 1.0, "a whole number"),
        ("total_steps", True, "a whole number"),
        ("total_steps", None, "a whole number"),
        ("total_steps", 0, "at least 1"),
        ("total_steps", 2**53 + 1, "at most 2**53 in size"),
        ("learning_rate", -1e300, "at most 3e38 in size"),
        ("learning_rate", float("nan"), "a finite number"),
        ("learning_rate", float("inf"), "a finite number"),
        ("learning_rate", 10**400, "a finite number"),
        ("learning_rate", False, "a finite number"),
        ("memory", "lstm", "'rel' or 'mem'"),
        ("combine", "max", "'sum' or 'mean' or none"),
        ("use_film", 1, "true or false"),
        ("rho", "5", "a whole number or none"),
        ("sizes", 5, "a list, each a whole number"),
        ("sizes", (5, "6"), "a list, each a whole number"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: Any, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(Example("A"), **{name: value})
    assert str(caught.value).startswith(f"{name} is ")
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        from_json(Example, {**to_json(Example("A")), name: value})


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        Example,
        env=st.text(),
        total_steps=st.integers(1, 2**53),
        learning_rate=st.floats(-3e38, 3e38) | st.integers(-9, 9),
        memory=st.sampled_from(["rel", "mem"]),
        combine=st.sampled_from(["sum", "mean", None]),
        use_film=st.booleans(),
        rho=st.none() | st.integers(-(2**53), 2**53),
        sizes=st.lists(st.integers(-(2**53), 2**53)),
    )
)
def test_json_round_trip(config: Example) -> None:
    back = from_json(Example, json.loads(json.dumps(to_json(config), allow_nan=False)))
    assert back == config
    assert isinstance(back.learning_rate, float)
    assert isinstance(back.sizes, tuple)
    hash(back)


def test_json_with_other_keys() -> None:
    good = to_json(Example("A"))
    with pytest.raises(ConfigKeyError, match=r"unknown setting 'memori' \(did you mean memory\?\)"):
        from_json(Example, {**good, "memori": "rel"})
    with pytest.raises(ConfigKeyError, match="unknown setting 'zzz'; known are env"):
        from_json(Example, {**good, "zzz": 1})
    with pytest.raises(ConfigKeyError, match="missing setting env, rho"):
        from_json(Example, {k: v for k, v in good.items() if k not in ("env", "rho")})
    with pytest.raises(ConfigKeyError, match="JSON object, not a list"):
        from_json(Example, [])


def test_names_by_role() -> None:
    assert names_of(Example, "budget", "machine") == ("total_steps",)
    assert names_of(Example, "result")[:2] == ("env", "learning_rate")


def test_a_field_that_cannot_be_a_setting() -> None:
    @dataclass(frozen=True)
    class Bad(Config):
        where: bytes = option(b"", "No.")

    with pytest.raises(TypeError, match="where"):
        Bad()
