"""What streaming costs, with this library and with others: ``python -m tests.benchmarks``. See ``README.md`` here."""
