from datetime import date
from pathlib import Path

import pytest

from audits import catalogue
from audits.policy import load_policy
from camcore.errors import BadInput
from tests.running import overlay


def waiver(**given: str) -> str:
    """A waiver as a policy has it."""
    lines = {"claim": "wall/leakage[gradcam]", "reason": "so", "owner": "me", **given}
    text = "".join(f"{key} = '{value}'\n" for key, value in lines.items())
    return f"[[waivers]]\n{text}bound = 0.2\n" + ("" if "expires" in given else "expires = 2031-05-01\n")


def test_the_shipped_policy_gives_every_threshold_a_source() -> None:
    policy = load_policy(None, profile="pr")

    assert policy.path == "policy.toml"
    assert policy.claims
    for claim in policy.claims.values():
        assert claim.severity in ("gate", "warn", "info")
        assert claim.source
        assert claim.why


def test_profiles_grant_more_and_more_images() -> None:
    images = [load_policy(None, profile=name).images for name in ("smoke", "pr", "release")]

    assert images == sorted(images)
    assert len(set(images)) == 3


def test_an_overlay_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    shipped = load_policy(None, profile="pr")
    laid = load_policy(overlay(tmp_path, '[claims."wall/leakage"]\nmargin = 0.2'), profile="pr")

    assert laid.claims["wall/leakage"].margin == 0.2
    assert laid.claims["wall/leakage"].severity == shipped.claims["wall/leakage"].severity
    assert {**laid.claims, "wall/leakage": None} == {**shipped.claims, "wall/leakage": None}
    assert (laid.level, laid.images) == (shipped.level, shipped.images)
    assert laid.path == str(tmp_path / "policy.toml")


def test_the_hash_is_of_the_content_not_of_the_file(tmp_path: Path) -> None:
    shipped = load_policy(None, profile="pr").sha256

    assert load_policy(overlay(tmp_path, "# nothing"), profile="pr").sha256 == shipped
    assert load_policy(overlay(tmp_path, "level = 0.95"), profile="pr").sha256 == shipped
    assert load_policy(overlay(tmp_path, "level = 0.9"), profile="pr").sha256 != shipped


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("lvel = 0.9", "unknown key 'lvel'; did you mean 'level'?"),
        ("[profiles.night]\nimages = 3", "unknown key 'profiles.night'; known: smoke, pr, release"),
        ('[claims."wall/leakage"]\nmargn = 1.0', "unknown key 'claims.wall/leakage.margn'; did you mean 'margin'?"),
        ("level = 'high'", "level: Input should be a valid number, got 'high'"),
        ("level = true", "level: Input should be a valid number, got True"),
        ("level = 1.5", "level: Input should be less than 1, got 1.5"),
        ("level = nan", "level: Input should be"),
        ("max_degenerate = 2.0", "max_degenerate: Input should be less than 1, got 2.0"),
        ("min_images = 0", "min_images: Input should be greater than or equal to 1, got 0"),
        ("min_images = 2.5", "min_images: Input should be a valid integer, got 2.5"),
        ("[profiles.pr]\nimages = 0", "profiles.pr.images: Input should be greater than or equal to 1, got 0"),
        ("claims = 3", "claims must be a table"),
        ("[level]\nx = 1", "level must be a value"),
        ('[claims."wall/leakage"]\nseverity = "fatal"', "Input should be 'gate', 'warn' or 'info', got 'fatal'"),
        ('[claims."wall/leakage"]\nmargin = nan', "margin: Input should be a finite number, got nan"),
        ('[claims."wall/leakage"]\nmargin = inf', "margin: Input should be a finite number, got inf"),
        ("level = ", "cannot be read as TOML"),
        ("[profiles.pr]\nseconds = 0", "profiles.pr.seconds: Input should be greater than 0, got 0"),
        ("inconclusive_exit = 0", "inconclusive_exit: Input should be 1 or 6, got 0"),
        ("[profiles.pr.attacks]\nsteps = 0", "profiles.pr.attacks.steps: Input should be greater than or equal to 1"),
        ("[profiles.pr.attacks]\nsizes = [1, 2]", "expected sizes in rising order, 4 (which is judged) among them"),
        (
            "[profiles.pr.attacks]\narea = 0.001",
            "profiles.pr.attacks.area: Input should be greater than or equal to 0.01",
        ),
        ("[profiles.pr.attacks]\nsizes = [8, 4]", "expected sizes in rising order"),
        ("[profiles.pr.attacks]\nrestart = 2", "unknown key 'profiles.pr.attacks.restart'; did you mean 'restarts'?"),
        ("required = ['walls']", "'walls' is required, which is no audit; did you mean 'wall'?"),
        ("required = 'wall'", "required: Input should be a valid list, got 'wall'"),
        (
            waiver(claim="wall/leakge[gradcam]"),
            "is for 'wall/leakge[gradcam]', which is no claim; did you mean 'wall/leakage'?",
        ),
        (waiver(owner=""), "waivers.0.owner: String should have at least 1 character, got ''"),
        (waiver(reason=" "), "waivers.0.reason: String should have at least 1 character"),
        ("min_images = 0x" + 5000 * "f", "min_images: Input should be less than or equal to 1000000"),
        (waiver(expires="soon"), "waivers.0.expires: Input should be a valid date, got 'soon'"),
        (waiver() + "reson = 'x'", "unknown key 'waivers.0.reson'; did you mean 'reason'?"),
        ("[[waivers]]\nclaim = 'wall/leakage'", "waivers.0.bound: Field required"),
    ],
)
def test_a_bad_overlay_is_refused_in_one_line(text: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised:
        load_policy(overlay(tmp_path, text), profile="pr")

    assert hint in str(raised.value)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(BadInput, match="cannot be read as TOML"):
        load_policy(tmp_path / "policy.toml", profile="pr")


def test_a_folder_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_policy(tmp_path, profile="pr")


def test_an_unknown_profile_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"no profile 'nightly' in policy\.toml; known: smoke, pr, release"):
        load_policy(None, profile="nightly")


def test_the_questions_of_an_audit_need_the_same_of_a_model() -> None:
    modules = catalogue.audit_modules(load_policy(None, profile="pr"))

    assert {name: len({question.needs for question in module.QUESTIONS}) for name, module in modules.items()} == (
        dict.fromkeys(modules, 1)
    )


def test_a_waiver_and_what_is_required_come_with_the_policy(tmp_path: Path) -> None:
    policy = load_policy(overlay(tmp_path, "required = ['wall']\n" + waiver(subject="resnet50")), profile="pr")
    (found,) = policy.waivers

    assert (found.claim, found.subject, found.bound) == ("wall/leakage[gradcam]", "resnet50", 0.2)
    assert (found.reason, found.owner, found.expires) == ("so", "me", date(2031, 5, 1))
    assert policy.required == ("wall",)
    assert policy.sha256 != load_policy(None, profile="pr").sha256
    assert load_policy(None, profile="pr").waivers == ()
