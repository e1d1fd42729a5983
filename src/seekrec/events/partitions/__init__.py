# SPDX-License-Identifier: Apache-2.0
"""Logs that are larger than memory: partitions of whole users, and the engines that process them."""

from seekrec.events.partitions.engines import Job, run_partitions
from seekrec.events.partitions.logs import PartitionedLog, PartitionInfo
from seekrec.events.partitions.partitioning import partition_log
from seekrec.events.partitions.splits import PartitionedSplit, audit_partitions, split_partitions

__all__ = [
    "Job",
    "PartitionInfo",
    "PartitionedLog",
    "PartitionedSplit",
    "audit_partitions",
    "partition_log",
    "run_partitions",
    "split_partitions",
]
