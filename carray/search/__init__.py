"""Search: what a study may draw, who draws it, and the lanes that its trials run on."""
