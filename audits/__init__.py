"""The questions put to a model: one file per question, test_<question>.py."""
