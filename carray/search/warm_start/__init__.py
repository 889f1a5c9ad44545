"""Starting points that a search takes from past studies."""
