"""One file per dialect or audience; every route names its action."""
