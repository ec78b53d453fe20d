"""The `cloister` command: one file per noun."""
