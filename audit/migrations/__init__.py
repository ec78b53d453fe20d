"""How the log's tables came to be, one file per step; a step that has shipped never changes."""
