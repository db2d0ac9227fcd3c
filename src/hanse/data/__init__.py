"""Data sets, readers, partitioners and splits: who holds what.

What people who write a few lines of Python need stands here; the rest is in the modules.
"""

from hanse.data.catalogue import PARTITIONERS, SETS, load_set, make_partitioner
from hanse.data.dataset import Dataset
from hanse.data.examples import Examples
from hanse.data.federated import ClientData, FederatedDataset, Split
from hanse.data.partition import (
    IID,
    Dirichlet,
    FeatureNoise,
    LabelsPerClient,
    Natural,
    Partition,
    Partitioner,
    QuantitySkew,
    Shards,
)
from hanse.data.readers.arrays import dataset_from_arrays
from hanse.data.readers.dataframe import dataset_from_frame
from hanse.data.readers.encode import About, Columns
from hanse.data.readers.items import dataset_from_items
from hanse.data.summary import PartitionSummary, summarise

__all__ = [
    "IID",
    "PARTITIONERS",
    "SETS",
    "About",
    "ClientData",
    "Columns",
    "Dataset",
    "Dirichlet",
    "Examples",
    "FeatureNoise",
    "FederatedDataset",
    "LabelsPerClient",
    "Natural",
    "Partition",
    "PartitionSummary",
    "Partitioner",
    "QuantitySkew",
    "Shards",
    "Split",
    "dataset_from_arrays",
    "dataset_from_frame",
    "dataset_from_items",
    "load_set",
    "make_partitioner",
    "summarise",
]
