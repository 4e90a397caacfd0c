"""Zeta in models that are already there: model surgery, transformers, timm, captum.

=========================  ======================================================================
``replace_activations``    swap the activations of a PyTorch, Flax NNX or Keras model for others
``replace_gates``          let one gate compute ``act(gate) * value`` in a PyTorch model
``SurgeryReport``          what it changed, what it could not see, and how to undo it
``register_transformers``  Zeta's activations under their names in transformers' configurations
``act_layer``              an activation as timm's models take it
``register_captum``        Zeta's activations among those that captum's DeepLift knows
=========================  ======================================================================

Importing this package imports no framework; each function imports the one that its model is of.
"""

from zeta.integrations.captum import register_captum
from zeta.integrations.report import FunctionCall, Replaced, SurgeryReport
from zeta.integrations.surgery import replace_activations, replace_gates
from zeta.integrations.timm import act_layer
from zeta.integrations.transformers import register_transformers

__all__ = [
    "FunctionCall",
    "Replaced",
    "SurgeryReport",
    "act_layer",
    "register_captum",
    "register_transformers",
    "replace_activations",
    "replace_gates",
]
