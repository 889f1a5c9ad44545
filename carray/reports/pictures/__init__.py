"""Pictures of studies and data, drawn to files."""
