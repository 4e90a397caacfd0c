"""Finished trials on disk.

====================  =========================================================================
``TrialStore``        the trials of one report's folder: opened by the one process that adds
``read_trials``       the same trials for whoever only reads, also while some are being added
``write_atomically``  a file that a crash leaves whole or absent
``export``            trials as a table, in Parquet or CSV
====================  =========================================================================

The JSON files are the truth. What lies in ``folder/trials``:

=================  ============================================================================
``KEY.json``       one finished trial
``KEY.group``      trials that were trained together, until each has its own file
``index.sqlite``   a copy of the JSON files, for speed and for queries; may be deleted
``VERSION``        what wrote the folder, so that an older Zeta leaves a newer one's alone
``.lock``          held by the process that adds trials
``*.corrupt``      unusable files, set aside
=================  ============================================================================
"""

from zeta.evaluate.store.export import export
from zeta.evaluate.store.files import write_atomically
from zeta.evaluate.store.trials import TrialStore, read_trials

__all__ = ["TrialStore", "export", "read_trials", "write_atomically"]
