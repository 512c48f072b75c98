"""Networks of our own, where no library that we need anyway has them; imported by name only, never by `camcore`."""
