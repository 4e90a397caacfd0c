"""Zeta in models that are already there: model surgery, transformers, timm.

=========================  ======================================================================
``replace_activations``    swap the activations of a PyTorch, Flax NNX or Keras model for others
``SurgeryReport``          what it changed, what it could not see, and how to undo it
``register_transformers``  Zeta's activations under their names in transformers' configurations
``act_layer``              an activation as timm's models take it
=========================  ======================================================================

Importing this package imports no framework; each function imports the one that its model is of.
"""

from zeta.integrations.report import FunctionCall, Replaced, SurgeryReport
from zeta.integrations.surgery import replace_activations
from zeta.integrations.timm import act_layer
from zeta.integrations.transformers import register_transformers

__all__ = [
    "FunctionCall",
    "Replaced",
    "SurgeryReport",
    "act_layer",
    "register_transformers",
    "replace_activations",
]
