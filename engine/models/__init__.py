"""Model architectures, each described by one frozen spec."""
