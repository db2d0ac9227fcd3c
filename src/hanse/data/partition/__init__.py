"""Ways to share one data set out among clients."""

from hanse.data.partition.base import Partition, Partitioner, Transform, client_names
from hanse.data.partition.dirichlet import Dirichlet
from hanse.data.partition.feature_noise import FeatureNoise
from hanse.data.partition.iid import IID
from hanse.data.partition.labels_per_client import LabelsPerClient
from hanse.data.partition.natural import Natural
from hanse.data.partition.quantity import QuantitySkew
from hanse.data.partition.shards import Shards

__all__ = [
    "IID",
    "Dirichlet",
    "FeatureNoise",
    "LabelsPerClient",
    "Natural",
    "Partition",
    "Partitioner",
    "QuantitySkew",
    "Shards",
    "Transform",
    "client_names",
]
