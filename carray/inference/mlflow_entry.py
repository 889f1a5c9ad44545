"""The code of a model that MLflow holds: it is copied beside the package and run to load it."""

from carray import load_model
from carray.tracking import serve

serve(load_model)
