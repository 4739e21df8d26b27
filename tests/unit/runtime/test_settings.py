"""Settings: flags > environment > file > default; what is wrong is named, what is secret is not shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, SecretStr, model_validator

from runtime.settings import Section, every_field, load, variable_of
from schemas.errors import ConfigurationError


class Bucket(Section):
    """A section."""

    size: int = Field(default=1, ge=1)
    """Size."""
    names: tuple[str, ...] = ()
    """Names."""
    shares: dict[str, float] = Field(default_factory=dict)
    """Shares."""
    linger_ms: float | None = None
    """Linger."""


class Store(Section):
    """Another."""

    secret: SecretStr | None = None
    """Secret."""
    path: Path = Path("here")
    """Path."""


class Root(Section):
    """Everything."""

    title: str = "default"
    """Title."""
    bucket: Bucket = Bucket()
    """A section."""
    store: Store = Store()
    """Another."""

    @model_validator(mode="after")
    def _rule(self) -> Root:
        if self.bucket.size > 1000:
            raise ValueError("bucket.size must be at most 1000")
        return self


def settings(
    tmp_path: Path,
    text: str | None = None,
    environment: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
) -> Root:
    file = None
    if text is not None:
        file = tmp_path / "logfeed.yaml"
        file.write_text(text)
    return load(Root, file=file, environment=environment or {}, flags=flags)


def problem(tmp_path: Path, *arguments: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings(tmp_path, *arguments)
    return str(caught.value)


def test_flags_go_before_environment_before_file_before_default(tmp_path: Path) -> None:
    text = "title: file\nbucket: {size: 2, names: [file]}\nstore: {path: file}\n"
    environment = {"LOGFEED_BUCKET__SIZE": "3", "LOGFEED_STORE__PATH": "environment"}
    found = settings(tmp_path, text, environment, {"store.path": Path("flag"), "title": None})
    assert (found.title, found.bucket.size, found.store.path) == ("file", 3, Path("flag"))
    assert found.bucket.names == ("file",)
    assert found.bucket.linger_ms is None


def test_nothing_set_means_defaults(tmp_path: Path) -> None:
    assert settings(tmp_path) == settings(tmp_path, "") == settings(tmp_path, "# only a comment\n") == Root()


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings(tmp_path).title = "other"  # type: ignore[misc]  # frozen is the promise


def test_lists_and_mappings_are_json_in_the_environment(tmp_path: Path) -> None:
    found = settings(tmp_path, None, {"LOGFEED_BUCKET__NAMES": '["a", "b,c"]', "LOGFEED_BUCKET__SHARES": '{"a": 0.5}'})
    assert found.bucket.names == ("a", "b,c")
    assert found.bucket.shares == {"a": 0.5}


def test_text_stays_text_in_the_environment(tmp_path: Path) -> None:
    assert settings(tmp_path, None, {"LOGFEED_TITLE": "no"}).title == "no"
    assert settings(tmp_path, None, {"LOGFEED_TITLE": "[not a list"}).title == "[not a list"


def test_lists_replace_and_sections_merge(tmp_path: Path) -> None:
    text = "bucket: {size: 5, names: [a, b], shares: {a: 1, b: 1}}"
    found = settings(tmp_path, text, {"LOGFEED_BUCKET__NAMES": '["c"]'})
    assert (found.bucket.size, found.bucket.names) == (5, ("c",))


def test_empty_variables_set_nothing(tmp_path: Path) -> None:
    """Compose files and service units pass variables that nobody filled."""
    found = settings(tmp_path, "bucket: {size: 5}", {"LOGFEED_BUCKET__SIZE": "", "LOGFEED_STORE__SECRET": ""})
    assert found.bucket.size == 5
    assert found.store.secret is None


def test_variables_that_are_no_settings_are_left_alone(tmp_path: Path) -> None:
    environment = dict.fromkeys(("LOGFEED_TEST_KAFKA", "LOGFEED_CACHE", "LOGFEED_CONFIG", "LOGFEED_URL", "PATH"), "x")
    assert settings(tmp_path, None, environment) == Root()


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("bucket: {sise: 3}", {}, "bucket.sise: there is no such setting: did you mean bucket.size?"),
        ("tilte: x", {}, "tilte: there is no such setting: did you mean title?"),
        ("linger_ms: 5", {}, "linger_ms: there is no such setting: did you mean bucket.linger_ms?"),
        ("bucket: {path: x}", {}, "bucket.path: there is no such setting: did you mean store.path?"),
        ("wholly_else: 1", {}, "wholly_else: there is no such setting"),
        (None, {"LOGFEED_BUKET__SIZE": "3"}, "buket: there is no such setting: did you mean bucket?"),
        (
            None,
            {"LOGFEED_BUCKET__SIZES": "3"},
            "bucket.sizes (LOGFEED_BUCKET__SIZES): there is no such setting: did you mean bucket.size?",
        ),
    ],
)
def test_unknown_names_are_refused_with_a_hint(
    tmp_path: Path, text: str | None, environment: dict[str, str], expected: str
) -> None:
    assert problem(tmp_path, text, environment).splitlines()[1:] == [f"  {expected}"]


def test_every_problem_is_named_where_it_stands(tmp_path: Path) -> None:
    lines = problem(tmp_path, "bucket: {size: 0, linger_ms: soon}\nstore: 7\n", {"LOGFEED_BUCKET__SHARES": "none"})
    head, *rest = lines.splitlines()
    assert head == f"the configuration ({tmp_path / 'logfeed.yaml'}) is not valid:"
    assert rest == [
        "  bucket.size: Input should be greater than or equal to 1, got 0",
        "  bucket.shares (LOGFEED_BUCKET__SHARES): Input should be a valid dictionary, got 'none'",
        "  bucket.linger_ms: Input should be a valid number, unable to parse string as a number, got 'soon'",
        "  store: is a section, not a value: set the settings inside it",
    ]


@pytest.mark.parametrize(
    "environment",
    [
        {"LOGFEED_STORE__SECRET": "hunter2", "LOGFEED_BUCKET__SIZE": "5000"},
        {"LOGFEED_STORE": "hunter2"},
        {"LOGFEED_STORE__SECRET": '["hunter2"]'},
        {"LOGFEED_STORE__SECRET__X": "hunter2"},
    ],
)
def test_errors_show_no_secret(tmp_path: Path, environment: dict[str, str]) -> None:
    assert "hunter2" not in problem(tmp_path, None, environment)


def test_rule_over_several_settings_speaks_for_itself(tmp_path: Path) -> None:
    assert problem(tmp_path, "bucket: {size: 1001}").splitlines()[1:] == [
        "  settings: bucket.size must be at most 1000"
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"bucket: {size: 1", "is no readable YAML"),
        (b"bucket:\n\tsize: 1\n", "is no readable YAML"),
        (b"title: \xff\n", "is no readable YAML"),
        (b"- a\n- b\n", "expected a mapping of sections, found list"),
        (b"just text\n", "expected a mapping of sections, found str"),
        (b"title: !!python/object/apply:os.getcwd []\n", "is no readable YAML"),
    ],
)
def test_file_that_is_no_configuration_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(Root, file=file, environment={})
    assert str(caught.value).startswith(f"{file}: {expected}")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.yaml: cannot be read: No such file"):
        load(Root, file=tmp_path / "gone.yaml", environment={})
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load(Root, file=tmp_path, environment={})


def test_every_field_is_listed_with_its_variable() -> None:
    assert [name for name, _ in every_field(Root)] == [
        *("title", "bucket.size", "bucket.names", "bucket.shares", "bucket.linger_ms", "store.secret", "store.path"),
    ]
    assert variable_of("bucket.linger_ms") == "LOGFEED_BUCKET__LINGER_MS"
