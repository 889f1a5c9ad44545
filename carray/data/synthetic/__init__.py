"""A synthetic data set of drawn cars, hard enough to search on."""

from carray.data.synthetic.car_models import MODELS, TWINS
from carray.data.synthetic.render import FLAWS_FILE, draw_car, render_toycars

__all__ = ["FLAWS_FILE", "MODELS", "TWINS", "draw_car", "render_toycars"]
