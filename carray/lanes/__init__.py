"""Ray Train worker groups that live as long as a study and train one trial at a time."""
