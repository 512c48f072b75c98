"""What pytest's header says of a run: what is audited, on what, by which policy, and what was left out."""

from audits.extensions import LOADED
from audits.plan import Plan

MOST = 10  # skipped files that are named


def header(plan: Plan) -> list[str]:
    """One line each; names of files and models stand in them as they are."""
    settings, policy = plan.settings, plan.policy
    lines = [f"plugin: {extension.said}" for extension in LOADED.values()]
    lines += [
        f"audits: profile {settings.profile}, seed {settings.seed}, device {plan.device}, "
        f"policy {policy.path} ({policy.sha256[:12]}), at most {policy.images} images"
    ]
    if plan.earlier:
        lines.append(f"audits: {plan.earlier} in {settings.report}")
    if settings.project is not None:
        said = ", ".join([*settings.project.options, *settings.project.policy])
        lines.append(f"audits: {settings.project.where} says {said or 'nothing'}")
    for audited in plan.audited:
        for role in audited.roles.values():
            subject, dataset = role.subject, role.dataset
            lines.append(
                f"audited: {subject.spec} ({subject.weights}, sha256 {subject.sha256[:12]}), "
                f"layer {subject.target_layer}, on {dataset.spec} ({len(dataset)} images, "
                f"sha256 {dataset.sha256[:12]}), batches of {role.terms.batch_size}"
            )
            for shown in role.shown:
                lines += [f"skipped: {file}: {reason}" for file, reason in shown.skipped[:MOST]]
                if len(shown.skipped) > MOST:
                    lines.append(f"skipped: and {len(shown.skipped) - MOST} more files of {shown.spec}")
        lines += [f"warning: {audited.subject.spec}: {opt_in}" for opt_in in audited.subject.unsafe]
    return lines
