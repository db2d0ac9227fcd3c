"""LightSecAgg: secure sums for buffered asynchronous rounds, where who is in a sum is known only when it is full.

Each client shares its mask itself among all others, by a Lagrange code, before it has anything to send. When enough
masked updates lie in the buffer, whoever is there sends one sum of shares, and from any U of these the server makes the
sum of the masks, whoever made them and whenever. State machines without input or output, as in the package around.

References:
  So, Nolet, Yang, Li, Yu, Ali, Guler, Avestimehr 2022, "LightSecAgg: a lightweight and versatile design for secure
  aggregation in federated learning", MLSys, arXiv:2109.14236, section 4 (protocol) and appendix F (asynchronous).
"""

from hanse.secagg.light.client import LightClient
from hanse.secagg.light.messages import KeyCard, LightInput, MaskBox, MaskOffer, Opening, OpenRequest
from hanse.secagg.light.server import LightServer, LightTotal
from hanse.secagg.light.terms import LightTerms

__all__ = [
    "KeyCard",
    "LightClient",
    "LightInput",
    "LightServer",
    "LightTerms",
    "LightTotal",
    "MaskBox",
    "MaskOffer",
    "OpenRequest",
    "Opening",
]
