"""All that is made from results.json, in one folder."""

from pathlib import Path

from reports import html, markdown, model_card, sarif, schema


def write_reports(results: schema.Results, folder: Path) -> None:
    """The report, the summary, the model card and the SARIF log.

    Raises:
        OSError: The folder does not exist or cannot be written.
    """
    html.write(results, folder / "report.html")
    schema.write_atomically(markdown.summary(results), folder / "summary.md")
    schema.write_atomically(model_card.model_index(results), folder / "model-index.yaml")
    schema.write_atomically(sarif.sarif(results), folder / "results.sarif")
