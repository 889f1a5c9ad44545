"""Heads trained or fitted on features of a frozen backbone."""
