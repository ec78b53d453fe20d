"""Text at the border: chat template, tokenizer, incremental decoding and stop strings."""
