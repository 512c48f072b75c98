"""Tests of the library, of the controls and of the reports."""
# The run-time type checker of `--jaxtyping-packages=camcore,tests.checked`, which looks one module deep: hence here.

from beartype import BeartypeConf, beartype

# An int is a fine float, as every static checker has it (PEP 484); beartype alone would refuse `level=1`.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
