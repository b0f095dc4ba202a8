"""The systems that are compared: one module each, all behind ``system.Cluster`` and ``system.Client``."""
