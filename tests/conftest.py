from hypothesis import settings

# The same examples on every machine and in every run: a red test here is red everywhere.
settings.register_profile("camcore", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("camcore")
