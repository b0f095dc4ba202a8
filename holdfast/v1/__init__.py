"""Generated from proto/holdfast/v1 by `make proto`; do not edit."""
