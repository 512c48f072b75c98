"""What two measurements must share before their numbers may be set beside each other."""

from reports.schema import Claim, Results, Subject

SHORT = 12  # letters of a hash that a person compares


def terms(results: Results, claim: Claim) -> dict[str, str]:
    """Of one claim in one run: each by the name that a reader knows it by.

    The policy is not among them: another margin judges the same numbers otherwise. Neither are the weights: they are
    what is compared.
    """
    subject = next((one for one in results.subjects if one.id == claim.subject), None)
    low, high = claim.bounds
    return {
        "data": ", ".join(sha[:SHORT] for sha in hashes(results, subject)),
        "seed": str(results.run.seed),
        "profile": results.run.profile,
        "version of the audit": claim.audit_version,
        "measure": f"{claim.measure.name} ({claim.measure.unit}), {claim.measure.direction}, in [{low:g}, {high:g}]",
    }


def hashes(results: Results, subject: Subject | None) -> list[str]:
    """SHA-256 of what a model was asked about; of all data of a run that does not say which model saw which."""
    own = () if subject is None else subject.data
    return sorted(own or (data.sha256 for data in results.data))


def apart(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """In what the terms of two measurements differ, for example "seed 0, then 7"; empty if they are comparable."""
    return [f"{what} {old[what] or 'none'}, then {new[what] or 'none'}" for what in new if old[what] != new[what]]
