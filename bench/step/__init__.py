"""A distillation step beside a release-style one."""
