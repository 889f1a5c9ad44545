"""The search space language: YAML that names what is fixed and what is drawn."""
