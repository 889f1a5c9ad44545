"""Toy cars: a small data set that the project draws itself, hard enough to search on."""

from carray.data.toycars.models import MODELS, TWINS
from carray.data.toycars.render import FLAWS_FILE, draw_car, render_toycars

__all__ = ["FLAWS_FILE", "MODELS", "TWINS", "draw_car", "render_toycars"]
