import pytest

from audits.options import CLEAN, OPTIONS, Settings, quoted, read_settings
from audits.roles import ROLES
from camcore.errors import BadInput
from fixtures.controls import CONTROLS
from fixtures.subjects.spec import first_ability


def settings(environment: dict[str, str] | None = None, **given: object) -> Settings:
    return read_settings({f"audit_option_{name}": value for name, value in given.items()}, environment or {})


def test_the_default_holds_where_nothing_is_said() -> None:
    found = settings()

    assert (found.models, found.profile, found.seed, found.device) == (CLEAN, "pr", 0, "auto")
    assert (found.cams, found.batch_size, found.resume, found.policy) == ((), None, False, None)


def test_the_default_is_one_clean_control_of_each_ability() -> None:
    assert [first_ability(spec) for spec in CLEAN] == list(ROLES)
    assert all(CONTROLS[spec.removeprefix("control:")].defect is None for spec in CLEAN)
    assert settings(data="photos").models == ("control:clean",)  # pictures of classes have no captions
    assert settings(layer="features.block3").models == ("control:clean",)  # the others have none
    assert settings(data="photos", model=["control:clip-oracle"]).models == ("control:clip-oracle",)


def test_the_environment_overrides_the_default() -> None:
    found = settings({"AUDIT_SEED": "7", "AUDIT_MODEL": "alexnet, vgg11", "AUDIT_RESUME": "1", "AUDIT_CAM": "all"})

    assert (found.seed, found.models, found.resume, found.cams) == (7, ("alexnet", "vgg11"), True, ("all",))


# 0 and the like are values, not the absence of one
@pytest.mark.parametrize(("name", "value", "variable"), [("seed", 0, "5"), ("seed", 3, "5"), ("batch_size", 2, "64")])
def test_the_command_line_overrides_the_environment(name: str, value: int, variable: str) -> None:
    assert getattr(settings({f"AUDIT_{name.upper()}": variable}, **{name: value}), name) == value


def test_a_list_on_the_command_line_replaces_that_of_the_environment() -> None:
    assert settings({"AUDIT_MODEL": "alexnet,vgg11"}, model=["resnet18"]).models == ("resnet18",)


@pytest.mark.parametrize("text", ["0", "false", "No", ""])
def test_a_flag_can_be_switched_off_in_the_environment(text: str) -> None:
    assert not settings({"AUDIT_RESUME": text}).resume


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert settings({"AUDIT_SEED": "", "AUDIT_PROFILE": ""}) == settings()


@pytest.mark.parametrize(
    ("environment", "hint"),
    [
        ({"AUDIT_SEED": "x"}, "AUDIT_SEED must be int, got 'x'"),
        ({"AUDIT_BATCH_SIZE": "1.5"}, "AUDIT_BATCH_SIZE must be int, got '1.5'"),
        ({"AUDIT_BATCH_SIZE": "0"}, "--audit-batch-size must be at least 1, got 0"),
        ({"AUDIT_PROFLIE": "pr"}, "unknown environment variable 'AUDIT_PROFLIE'; did you mean 'AUDIT_PROFILE'"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(environment: dict[str, str], hint: str) -> None:
    with pytest.raises(BadInput) as raised:
        settings(environment)

    assert hint in str(raised.value)


def test_variables_of_other_programs_are_left_alone() -> None:
    assert settings({"AUDIT_LOG_GROUP_ARN": "x", "PROFILE": "y", "AUDITD": "z"}) == settings()


def test_no_two_options_share_a_name() -> None:
    for names in ([one.flag for one in OPTIONS], [one.dest for one in OPTIONS], [one.environment for one in OPTIONS]):
        assert len(names) == len(set(names))


def test_the_rerun_command_repeats_what_was_asked() -> None:
    found = settings(model=["py:my models.py:build"], weights="a'b.pth", cam=["gradcam"], seed=3)

    assert found.words == (
        "--model 'py:my models.py:build' --weights 'a'\"'\"'b.pth' --audit-profile pr --audit-seed 3 --cam gradcam"
    )


@pytest.mark.parametrize("name", ["baseline", "policy", "data", "model", "artefact"])
def test_an_option_that_is_empty_is_refused(name: str) -> None:
    (option,) = (one for one in OPTIONS if one.name == name)
    value = [""] if option.many else ""

    with pytest.raises(BadInput, match=f"^{option.flag} is empty; give it a value, or leave it out$"):
        read_settings({option.dest: value}, {})


@pytest.mark.parametrize("word", ["", "a b", "$(rm x)", "it's", "a\nb", "*", "~x"])
def test_a_word_with_meaning_to_a_shell_is_quoted(word: str) -> None:
    assert quoted(word).startswith("'")
    assert quoted(word).endswith("'")


def test_a_number_that_is_none_is_refused_in_one_line_of_ours() -> None:
    with pytest.raises(BadInput, match=r"^--audit-seed must be int, got 'x'$"):
        read_settings({"audit_option_seed": "x"}, {})


def test_a_number_of_the_command_line_is_converted() -> None:
    assert read_settings({"audit_option_seed": "7", "audit_option_batch_size": "3"}, {}).seed == 7
