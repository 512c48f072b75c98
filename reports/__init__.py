"""From results.json to HTML, a terminal table and pytest-html cells. Imports nothing of ours."""
